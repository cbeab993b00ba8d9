"""Ways through the data: a graph of latent points with true edge lengths, the shortest paths on it that solvers start
from, and logarithms along its trees. Uses `metrics`."""
