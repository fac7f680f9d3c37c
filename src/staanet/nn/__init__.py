"""Building blocks of networks: convolution with max-pooling, padding, precision, several processes, Triton kernels."""
