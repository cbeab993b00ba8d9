"""Statistics of points: Fréchet means, k-means, k-medoids, random walks. Uses `connecting`."""
