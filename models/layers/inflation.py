"""Inflation: kernels of a 2D network as kernels over time (Carreira and Zisserman 2017)."""

from collections.abc import Mapping

from torch import Size, Tensor


def inflate(state: Mapping[str, Tensor], shapes: Mapping[str, Size]) -> dict[str, Tensor]:
    """Kernels (out, in, h, w) as (out, in, t, h, w) where `shapes` has them so; all else as it is.

    Carreira and Zisserman, "Quo Vadis, Action Recognition?" (CVPR 2017), section 2.4: repeated over time and divided by
    t, so that of equal frames the net makes what the 2D net makes of one, but where its kernels reach past the ends.
    """
    inflated = dict(state)
    for name, kernel in state.items():
        shape = shapes.get(name, kernel.shape)
        if kernel.ndim == 4 and len(shape) == 5:
            inflated[name] = kernel.unsqueeze(2).repeat(1, 1, shape[2], 1, 1) / shape[2]
    return inflated
