"""No attention: the plain backbone, frame by frame (TSN) or as a volume.

Wang et al., "Temporal Segment Networks" (ECCV 2016), section 3: one frame from each of T segments, a network per frame,
and the average of the scores as consensus (VideoNet does both). A `volume` backbone is the unchanged 3D network.
"""

from models.backbone import Backbone


def attach(net: Backbone, frames: int) -> Backbone:
    """Return the net unchanged."""
    return net
