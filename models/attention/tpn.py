"""TPN: a temporal pyramid over res4 and res5, MAAGN's baseline.

Yang, Xu, Shi, Dai and Zhou, "Temporal Pyramid Network for Action Recognition" (CVPR 2020), section 3;
models/layers/tpn.py says what it computes and where the authors' code and the text differ.

- On a backbone that takes frames it stands on TSM, shifted in place, as in the authors' configuration for
  Something-Something; one that takes volumes (SlowOnly, theirs for Kinetics) is never shifted.
- The head is VideoNet's, and so is its dropout; its start is the recipe's (recipe maagn has theirs, deviation 0.01).
"""

from models.backbone import Backbone
from models.layers.tpn import attach_pyramid


def attach(net: Backbone, frames: int, *, flow: str = "cascade", aux: bool = True, shift: bool = True) -> Backbone:
    """TPN on top of the net, with an auxiliary head on res4 if `aux` is set, over TSM if `shift` is.

    Raises ValueError for an unknown flow, and for a backbone that does not end in res4 and res5.
    """
    attach_pyramid(net, frames, "tpn", flow, aux, shift)
    return net
