"""TPN: a temporal pyramid over res4 and res5, MAAGN's baseline.

Yang, Xu, Shi, Dai and Zhou, "Temporal Pyramid Network for Action Recognition" (CVPR 2020), section 3.
models/layers/tpn.py describes the computation and the differences between the authors' code and the text.

- On a backbone that takes frames it is built on TSM, shifted in place, as in the authors' configuration for
  Something-Something. One that takes volumes (SlowOnly, theirs for Kinetics) is never shifted.
- Head and dropout are VideoNet's; the head's initial weights are the recipe's (recipe maagn has TPN's, deviation 0.01).
"""

from models.backbone import Backbone
from models.layers.tpn import attach_pyramid


def attach(net: Backbone, frames: int, *, flow: str = "cascade", aux: bool = True, shift: bool = True) -> Backbone:
    """Add a TPN on top of the net.

    Args:
        net: a backbone that ends in res4 and res5.
        frames: T.
        flow: of models/layers/tpn.py's FLOWS.
        aux: add an auxiliary head on res4.
        shift: add TSM's shift where the backbone takes frames.

    Raises:
        ValueError: The flow is unknown, or the backbone does not end in res4 and res5.
    """
    attach_pyramid(net, frames, "tpn", flow, aux, shift)
    return net
