"""Riemannian metrics and all that one asks of them point by point or along a curve: norms, measures, Christoffel
symbols, curvature, the energy of a path with its derivatives, and lengths by an independent quadrature. Uses
`generators` and `curves`."""
