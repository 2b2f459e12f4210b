"""Inflation of a 2D network's kernels over time (Carreira and Zisserman 2017)."""

from collections.abc import Mapping

from torch import Size, Tensor


def inflate(state: Mapping[str, Tensor], shapes: Mapping[str, Size]) -> dict[str, Tensor]:
    """Return kernels (out, in, h, w) as (out, in, t, h, w) where `shapes` needs it.

    Carreira and Zisserman, "Quo Vadis, Action Recognition?" (CVPR 2017), section 2.4: kernels are repeated over time
    and divided by t. On equal frames the net then gives the 2D net's output of one frame, except where kernels reach
    past the ends. Other tensors stay as they are.
    """
    inflated = dict(state)
    for name, kernel in state.items():
        shape = shapes.get(name, kernel.shape)
        if kernel.ndim == 4 and len(shape) == 5:
            inflated[name] = kernel.unsqueeze(2).repeat(1, 1, shape[2], 1, 1) / shape[2]
    return inflated
