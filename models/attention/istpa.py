"""ISTPA: frame maps merged into one by attention over a pyramid of stages.

"Interaction-Aware Spatio-Temporal Pyramid Attention Networks for Action Classification" (Du, Yuan, Li, Hu et al.; ECCV
2018), section 3. Numbers of equations and tables are those of its journal version. X_j, C_j x K*P, are the maps of
stage j of all K frames, max-pooled to P positions each. Their scores X_j^T W_j + b_j (K*P x P, equation 2) are fused
over the stages. Each column is softmaxed over all positions of all frames and divided by its length. It holds the
weights of one position of the merged map: M = X A (C x P, equation 4), where X is the last stage's. M replaces K maps,
so the rest of the net sees one map per clip. No weight depends on K; K = 1 is the attention of images (table 6). Two
losses are added with the weights `interaction` and `attention` (equations 12 and 16; 0.0 switches one off). Equation 8
asks that each column takes a share of the maps' energy, and that any two columns differ. Equations 9 to 15 maximize a
column's distance to the attention of each stage alone, frame by frame.

net.backbone.neck.attention is a module that gives A (N, K*R, P) in each forward pass. Its rows run frame by frame, and
within a frame row by row, R of them. A forward hook on it sees the weights of a clip's merged map.

`streams`: RGB and flow together, as models/layers/two_streams.py reads the paper: fused by "attention", or RGB
"reinforced" by motion (table 11); "one" is for RGB or flow by itself.

Ablations: `scales` (table 2; 0 is the plain net, TSN), `position` (table 1), `fusion` (table 3), the losses (table 4),
`shared` (table 5), `shift` (table 14: TSM's shift below). Positions are after res3 "A", res4 "B" and res5 "C". "fc" is
the frames' pooled features, with one weight per frame. Tables 1 to 3 are without the losses, as their numbers in table
4 show.

The authors published no code. This is our reading where the paper leaves a choice:
- `positions` is the side of the merged map, P its square: 7 at 224x224; at 299x299, for Inception-ResNet-v2, 8, or 17
  and 35 at positions "B" and "A". X keeps the size of the last stage's maps at any frame size: a net trained at 224 and
  tested at 256 has 64 rows per frame for its 49 columns. Other stages are pooled to that size by adaptive maxima.
- Stages are those of the backbones; some printed widths are of other nets. BN-Inception's are printed as GoogLeNet's,
  and the fourth stage of Inception-ResNet-v2 is 71x71x192 (res2), printed 92.
- The paper uses maps "without activation" (5.1.6) for VGG and BN-Inception, nets without shortcuts. They are the output
  of a stage's last convolutions before their ReLU, which follows after the pyramid, and after M. Residual blocks give
  their output, as the paper states for ResNet-50 (5.7.2). `bare` "all" or "none" makes it the same for all nets.
  Inception-ResNet-v2's res5 and MobileNetV2's blocks have no ReLU at their end.
- On MobileNetV2 the layer follows the linear bottleneck of 320 channels. The layers after it (1x1 convolution, norm,
  ReLU6) see M, as in Inception-ResNet-v2. After that norm (1280 channels) features have 245 times TSN's squared
  length, and a layer placed there ends at chance.
- Weights start by Xavier's uniform distribution and biases at 0, the default of TF-slim, which the authors use. Columns
  are then peaked from the start, and the classifier's steps are stable at all published rates: lr |h|^2 / K is below
  2 (1 + momentum). `start` "normal": deviation 0.01, biases at 1 for the product, otherwise 0. Then columns are even
  and M is as long as sqrt(K P) maps. Training on flow, HMDB51 and Kinetics-400 diverges, at 5 to 10 times the bound.
  With one scale or the sum, a column's bias does not change its softmax; it exists because table 10 counts it.
- `shared`: W_j is C_j x 1, one score for all columns. All positions of M are then equal.
- Scores, softmax and A are computed in fp32 under lower precision too: products of three scores are large.
- Columns have length 1, not sum 1, so M grows with K and the positions P: as sqrt(K P) where attention is even.
- Weight decay has the factor 1/2 of TF-slim's regularizer. Charades' loss is the mean over classes: the sum's gradient
  is 157 times as large. Margins of trajectories' machines are scaled before they are fused (pipeline/trajectories).
Misprints, corrected here:
- Equation 12 subtracts the classification loss; it is added.
- The radicand of equation 14 may be negative for K = 1, because no delta is bounded by 1: it is 1e-12 at least.
- Equation 8 has no lower bound in X, so X is held fixed: its gradient flows through A only. The loss is large: with
  ResNet-18 from random weights, 112x112 and 4 clips of 3 frames, it is -446 at the published 1e-4; cross entropy is
  5.5. Its gradient is 7 times that of cross entropy in the backbone and 200 times in W and b. Losses are means over
  the clips.
- Equation 16 averages the classification loss over K frames, of which M leaves one.
"""

from torch import nn

from models.backbone import Backbone, check_known, check_least, frame_blocks
from models.layers.pyramid import FUSIONS, STARTS, InteractionPyramid
from models.layers.shift import shift_blocks
from models.layers.two_streams import FusedPyramid, ReinforcedPyramid, TwoStreams

STREAMS = {"one": InteractionPyramid, "attention": FusedPyramid, "reinforced": ReinforcedPyramid}
TOPS = {"A": "res3", "B": "res4", "C": "res5", "fc": None}
STAGES = ("res2", "res3", "res4", "res5")
BARE = ("published", "all", "none")


def attach(
    net: Backbone,
    frames: int,
    *,
    scales: int = 3,
    fusion: str = "product",
    position: str = "C",
    positions: int = 7,
    shared: bool = False,
    interaction: float = 1e-4,
    attention: float = 1e-4,
    shift: bool = False,
    streams: str = "one",
    start: str = "xavier",
    bare: str = "published",
) -> Backbone:
    """Add the pyramid after the stage of `position`.

    Args:
        net: a backbone that takes frames, or two streams of them.
        frames: K.
        scales: number of stages that give scores; 0 leaves the net as it is.
        fusion: of the stages' scores, one of FUSIONS.
        position: of TOPS.
        positions: side of the merged map.
        shared: one score for all columns.
        interaction: weight of the interaction loss.
        attention: weight of the attention loss.
        shift: add TSM's shift.
        streams: "attention" or "reinforced" where the net sees RGB and flow, otherwise "one".
        start: initial weights of the scores, one of STARTS.
        bare: nets that give their maps before the last ReLU: "published", "all" that have one, or "none".

    Raises:
        ValueError: The backbone takes volumes; it has fewer stages than `scales` up to `position` (one for "fc"); a
            name is unknown; `positions` is below 1; a weight is below 0; blocks behind the merged map are to be
            shifted; or `streams` does not match the net.
    """
    blocks = [frame_blocks(stream, "istpa") for stream in net.streams()]
    check_known("istpa", fusion=(fusion, FUSIONS), position=(position, TOPS), streams=(streams, STREAMS))
    check_known("istpa", start=(start, STARTS), bare=(bare, BARE))
    check_least("istpa", positions=positions)
    check_least("istpa", 0, interaction=interaction, attention=attention)
    two = isinstance(net, TwoStreams)
    if two != (streams != "one") or (two and scales == 0):
        raise ValueError(
            f"attention 'istpa': streams is {streams!r} with scales {scales}; RGB with flow (input rgb+flow) takes "
            "attention or reinforced with 1 scale or more, either by itself takes one"
        )

    top = TOPS[position] or list(net.stages)[-1]
    below = [stage for stage in STAGES if stage in net.stages and stage <= top] if TOPS[position] else [top]
    if not 0 <= scales <= len(below):
        raise ValueError(
            f"attention 'istpa': scales is {scales}; position {position!r} of this backbone has 0 to {len(below)}: "
            + ", ".join(reversed(below))
        )
    if shift and scales and position in ("A", "B"):
        raise ValueError(f"attention 'istpa': shift needs position C or fc; behind {position} blocks see merged maps")
    for stream in net.streams() if shift else ():
        shift_blocks(stream, frames, 8, "istpa")
    if scales == 0:
        return net

    channels = {stage: net.streams()[0].stages[stage] for stage in below[-scales:]}
    before_relu = bare == "all" or (bare == "published" and not net.streams()[0].shortcuts)
    bared = set()
    for stage in channels if TOPS[position] and before_relu else ():
        for last in (of_stream[stage][-1] for of_stream in blocks if stage in of_stream):
            if not isinstance(last.relu, nn.Identity):
                last.relu = nn.Identity()
                bared.add(stage)
    pooled = not TOPS[position]
    side = 1 if pooled else positions
    net.neck = STREAMS[streams](
        frames,
        channels,
        (side, side),
        fusion=fusion,
        shared=shared,
        interaction=interaction,
        attention=attention,
        bare=bared,
        start=start,
        average=pooled,
    )
    if isinstance(net, TwoStreams):
        net.merge(top)
    return net
