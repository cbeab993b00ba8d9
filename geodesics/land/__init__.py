"""Densities: mixtures of locally adaptive normal distributions, their normalizers and their fit. Uses `connecting`,
`graphs` and `statistics`."""
