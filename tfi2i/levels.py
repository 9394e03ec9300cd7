"""The mapping between the levels of pixels and a method's float range, here alone.

Both functions take a numpy array or a tensor of floats, and return the same kind.
"""


def to_range(x, value_range, peak=255.0):
    """Levels 0 … `peak` → floats in `value_range` = (low, high)."""
    low, high = value_range
    return x / peak * (high - low) + low


def to_levels(x, value_range, peak=255.0):
    """Floats in `value_range` = (low, high) → levels 0 … `peak`, neither rounded nor clipped."""
    low, high = value_range
    return (x - low) * (peak / (high - low))
