"""ISTPA: the frames' maps merged into one by attention whose scores come from a pyramid of stages.

"Interaction-Aware Spatio-Temporal Pyramid Attention Networks for Action Classification" (Du, Yuan, Li, Hu et al.; ECCV
2018, and its journal version, whose numbers of equations and tables these are), section 3. X_j, C_j x K*P, are the maps
of stage j of all K frames, max-pooled to P positions each. Their scores X_j^T W_j + b_j (K*P x P, equation 2) are fused
over the stages. Each column, softmaxed over all positions of all frames and divided by its length, says what one
position of the merged map is made of: M = X A (C x P, equation 4), X being the last stage's. M takes the place
of K maps, so the rest of the net sees one map a clip. No weight depends on K; K = 1 is the attention of images (table
6). Two losses are added with the weights `interaction` and `attention` (equations 12 and 16; 0.0 switches one off).
Equation 8 asks of each column a share of the maps' energy, and of any two that they differ; equations 9 to 15 maximize
a column's distance to what each stage alone would attend to, frame by frame.

net.backbone.neck.attention is a module that gives A (N, K*R, P) in each forward pass, rows frame by frame and in a
frame row by row, R of them: a forward hook on it sees what a clip's map is made of.

`streams`: RGB and flow together, as models/layers/two_streams.py reads what the paper names: fused by "attention", or
RGB "reinforced" by motion (table 11); "one" is for RGB or flow by itself.

Ablations: `scales` (table 2; 0 is the plain net, TSN), `position` (table 1: after res3 "A", res4 "B", res5 "C", or
"fc", of the frames' pooled features, a weight a frame), `fusion` (table 3), the losses (table 4), `shared` (table 5),
`shift` (table 14: TSM's shift below). Tables 1 to 3 are without the losses, as their numbers in table 4 say.

There is no code of the authors. What the paper leaves open, and how it is read here:
- `positions` is the side of the merged map, P its square: 7 at 224x224; at 299x299, for Inception-ResNet-v2, 8, or 17
  and 35 at positions "B" and "A". X keeps the size of the last stage's maps, whatever the frames' (a net trained at
  224 and tested at 256 has 64 rows a frame for its 49 columns); other stages are pooled to it by adaptive maxima.
- Stages are those that the backbones have, not all of the printed widths: in BN-Inception's place these are
  GoogLeNet's, and the fourth of Inception-ResNet-v2 is 71x71x192 (res2), printed 92.
- Maps "without activation" (5.1.6) are said of VGG and BN-Inception, nets without shortcuts: they are what a stage's
  last convolutions give, before their ReLU, which follows behind the pyramid, and behind M. Residual blocks give what
  they output, ResNet-50's by the paper's words (5.7.2). `bare` "all" or "none" makes it the same for all nets.
  Inception-ResNet-v2's res5 and MobileNetV2's blocks have no ReLU to begin with.
- On MobileNetV2 the layer follows the linear bottleneck of 320 channels. What is behind it, 1x1 convolution, norm and
  ReLU6, sees M, as Inception-ResNet-v2's does. Behind that norm (1280 channels) features have 245 times TSN's squared
  length, and the layer ends at chance.
- Weights start by Xavier's uniform distribution and biases at 0, which is the default of TF-slim, in which the authors
  work. Columns are then peaked from the start, and the classifier's steps stable at all published rates: lr |h|^2 / K
  is below 2 (1 + momentum). `start` "normal": deviation 0.01, biases at 1 for the product, else at 0. Then columns are
  even, M is sqrt(K P) maps long, and at 5 to 10 times the bound on flow, HMDB51 and Kinetics-400 training diverges.
  With one scale or the sum, a column's bias does nothing to its softmax: it is there because table 10 counts it.
- `shared`: W_j is C_j x 1, one score for all columns. All positions of M are then equal.
- Scores, softmax and A are computed in fp32 under lower precision too: products of three scores are large.
- Columns have length 1, not sum 1, so M grows with K and the positions P: as sqrt(K P) where attention is even.
Misprints, put right:
- Equation 12 subtracts the classification loss; it is added.
- The radicand of equation 14 may be negative for K = 1, for no delta is bound by 1: it is 1e-12 at least.
- Equation 8 has no lower bound in X, which it therefore holds fixed: its gradient goes by way of A. It is large: with
  ResNet-18 from random weights, 112x112 and 4 clips of 3 frames, -446 at the published 1e-4, beside a cross entropy of
  5.5, with a gradient 7 times that one's in the backbone and 200 times in W and b. Losses are means over the clips.
- Equation 16 averages the classification loss over K frames, of which M leaves one.
"""

from collections.abc import Collection

from torch import nn

from models.backbone import Backbone, frame_blocks
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
    """The layer after the stage of `position`, with the scores of this and the stages before it, `scales` in all.

    `streams` is how flow joins RGB there, "attention" or "reinforced", in a net that sees both. `bare` says which nets
    give their maps before the last ReLU: "published", "all" that have one, or "none".

    Raises ValueError for a backbone that takes volumes, more scales than it has stages up to there (after the pooling,
    "fc", there is one), an unknown fusion or position, positions below 1, a weight below 0, and a shift where blocks
    see merged maps; and for two streams without a way to join, or one with.
    """
    blocks = [frame_blocks(stream, "istpa") for stream in net.streams()]
    choices: dict[str, tuple[str, Collection[str]]]
    choices = {"fusion": (fusion, FUSIONS), "position": (position, TOPS), "streams": (streams, STREAMS)}
    choices |= {"start": (start, STARTS), "bare": (bare, BARE)}
    for knob, (given, known) in choices.items():
        if given not in known:
            raise ValueError(f"attention 'istpa': {knob} is {given!r}; known: {', '.join(known)}")
    if positions < 1:
        raise ValueError(f"attention 'istpa': positions is {positions}; the side of a map is 1 or more")
    for knob, weight in (("interaction", interaction), ("attention", attention)):
        if weight < 0:
            raise ValueError(f"attention 'istpa': {knob} is {weight}; the weight of a loss is 0.0 or more")
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
