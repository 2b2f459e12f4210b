"""No attention: the plain backbone, frame by frame (TSN) or as a volume.

Wang et al., "Temporal Segment Networks" (ECCV 2016), section 3: one frame from each of T segments, a network per frame,
and as consensus the average of the scores (VideoNet does both). On a `volume` backbone: that 3D network as it is.
"""

from models.backbone import Backbone


def attach(net: Backbone, frames: int) -> Backbone:
    """The net, unchanged."""
    return net
