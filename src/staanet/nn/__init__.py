"""Building blocks of networks: convolution with max-pooling, recurrent backward passes, padding, precision, processes."""
