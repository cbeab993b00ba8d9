"""The core's small pieces and batched solves, timed against their floors: ``make bench``."""
