"""Curves without a metric: polynomial elements, the curves made of them, meshes, and initial curves. Uses `batches`."""
