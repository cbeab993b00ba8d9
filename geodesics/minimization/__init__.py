"""Method one, the energy of curves: damped Newton on a chain of elements, levels of resolution, and the search among
several starts. Uses `metrics`."""
