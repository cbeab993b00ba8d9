"""Method one without matrices, for many latents: L-BFGS on the energy, a few elements at a time. Uses `metrics`."""
