"""Peers of the library, one file each, behind functions of one form; used where they are installed."""
