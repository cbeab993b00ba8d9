"""Standard deviations that grow away from the data: an RBF network or a neural field for the precision, their fits, and
the choice of their settings from held-out data."""
