"""Method two, the geodesic equation: its flow, the exponential map, and multiple shooting for the boundary-value
problem. Uses `metrics`."""
