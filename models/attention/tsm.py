"""TSM: the temporal shift module, without a parameter or a multiplication.

Lin, Gan and Han, "TSM: Temporal Shift Module for Efficient Video Understanding" (ICCV 2019); models/layers/shift.py
says where its shift stands and what follows the authors' code.
"""

from models.backbone import Backbone
from models.layers.shift import shift_blocks


def attach(net: Backbone, frames: int, *, fold: int = 8, pool: bool = False) -> Backbone:
    """Shifts 1/fold of the channels each way at the entry of the residual blocks; `pool`: res3 on see half the frames.

    Raises ValueError for a backbone that takes volumes, for a fold below 2 (both folds must fit), and for a pool where
    there is no res2.
    """
    shift_blocks(net, frames, fold, "tsm", pool)
    return net
