"""What is read and written: data sets, checkpoints, and weights published by others."""
