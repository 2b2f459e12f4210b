"""TSM: the temporal shift module, without a parameter or a multiplication.

Lin, Gan and Han, "TSM: Temporal Shift Module for Efficient Video Understanding" (ICCV 2019). models/layers/shift.py
describes the place of the shift and the details that follow the authors' code.
"""

from models.backbone import Backbone
from models.layers.shift import shift_blocks


def attach(net: Backbone, frames: int, *, fold: int = 8, pool: bool = False) -> Backbone:
    """Shift 1/fold of the channels each way at the entry of the residual blocks.

    Args:
        net: a backbone that takes frames.
        frames: T.
        fold: 2 or more, because both folds must fit.
        pool: stages from res3 on see half the frames.

    Raises:
        ValueError: The backbone takes volumes, the fold is below 2, or `pool` is set where there is no res2.
    """
    shift_blocks(net, frames, fold, "tsm", pool)
    return net
