"""What changes a waveform on its way to a victim."""
