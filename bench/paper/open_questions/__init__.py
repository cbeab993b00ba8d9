"""What the paper leaves open: latent dimensions, activations, a neural field, and curvature."""
