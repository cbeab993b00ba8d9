"""Checks of solver options, with one wording for all."""


def require_at_least_one(options: object, *names: str) -> None:
    """Raise unless these attributes are 1 or more."""
    for name in names:
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1; got {getattr(options, name)}")


def require_positive(options: object, *names: str) -> None:
    """Raise unless these attributes are above zero, or None where None stands for a default."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be positive; got {value}")


def require_not_below(options: object, name: str, other: str) -> None:
    """Raise where one attribute is below another."""
    value, least = getattr(options, name), getattr(options, other)
    if value < least:
        raise ValueError(f"{name} must be at least {other}; got {value} < {least}")
