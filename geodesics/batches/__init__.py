"""Work on many rows at once: states taken and written row by row, blocks that fit the memory, small matrices, and the
checks of public arguments. Uses nothing of the package."""
