"""Video network from clips to logits: backbone, pooling, head, mean over frames."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_origin

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone
from models.layers.two_streams import TwoStreams, adapt
from models.registry import named, unknown
from models.weights import fill, misfit, ours, read


class VideoNet(nn.Module):
    """A backbone and a linear head: clips (N, T, C, H, W) -> logits (N, classes).

    Clips are float and normalized. A backbone of layout "frames" classifies every frame, and a clip's logits are the
    mean over its frames (TSN's average consensus, Wang et al. 2016, section 3.1). An attention module that merges
    frames leaves fewer maps to average. A backbone of layout "volume" sees the whole clip. Memory order is kept: clips
    that are views of (N, T, H, W, C) run channels-last with no copy.

    Attributes:
        backbone, head: the network's two parts; head is the last Linear.
        frames: T. A clip with another T is a ValueError, because modules that unfold frames would silently mix clips;
            retime() changes it.
        mean, std, channels: the backbone's normalization of pixels; as many means as a clip has planes.
        attention_parameters: names of the attention's parameters, as in named_parameters().
    """

    def __init__(
        self, backbone: Backbone, frames: int, classes: int, dropout: float = 0.0, head_std: float | None = 0.001
    ) -> None:
        super().__init__()
        self.frames = frames
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = _head(backbone.features, classes, head_std)
        self.mean, self.std, self.channels = backbone.mean, backbone.std, backbone.channels
        self.attention_parameters: frozenset[str] = frozenset()

    def forward(self, clips: Tensor) -> Tensor:
        maps = self._maps(clips)  # (N*T, features, h, w) or (N, features, t, h, w)
        return self._logits(maps.flatten(2).mean(2), len(clips))

    def published(self, clips: Tensor) -> Tensor:
        """Return the same by the backbone's published pooling, for models/paper_flops.py."""
        maps = self._maps(clips)
        places = maps.flatten(2)  # (N*T or N, features, t*h*w)
        match self.backbone.pooling:
            case "adaptive":
                pooled = places.mean(2)
            case "window":
                pooled = F.avg_pool1d(places, places.shape[2]).flatten(1)
            case "unseen":
                pooled = places.sum(2) / places.shape[2]  # a sum is not seen
        return self._logits(pooled, len(clips))

    def _maps(self, clips: Tensor) -> Tensor:
        """Return the backbone's maps of clips (N, T, C, H, W), in its layout.

        Raises:
            ValueError: The clips have another shape.
        """
        if clips.ndim != 5 or clips.shape[1] != self.frames:
            raise ValueError(f"clips are (N, T, C, H, W) with T = {self.frames}, not {tuple(clips.shape)}")
        return self.backbone(clips.flatten(0, 1) if self.backbone.layout == "frames" else clips.transpose(1, 2))

    def _logits(self, pooled: Tensor, n: int) -> Tensor:
        """Return the mean logits of frames: (N*T or N, features) -> (N, classes)."""
        return self.head(self.dropout(pooled)).unflatten(0, (n, -1)).mean(1)

    def retime(self, frames: int) -> None:
        """Take clips of another T from now on.

        A module that unfolds frames keeps their number as `frames`, and sets `retimable = False` where its weights do
        not allow another.

        Raises:
            ValueError: Weights are for one T; the net is unchanged.
        """
        folding = [module for module in self.backbone.modules() if isinstance(getattr(module, "frames", None), int)]
        fixed = [module for module in folding if not getattr(module, "retimable", True)]
        if fixed and frames != self.frames:
            raise ValueError(f"the weights of {type(fixed[0]).__name__} are for T = {self.frames}, not {frames}")
        self.frames = frames
        for module in folding:
            module.frames = frames  # type: ignore[assignment]

    def penalty(self, criterion: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the sum of the modules' penalties for the last training clips, ().

        A module keeps the inputs of its penalty(criterion) in training, and drops them once asked.

        Args:
            criterion: the training loss of logits (N, classes), for a module with a classifier.
        """
        terms = [getattr(module, "penalty", None) for module in self.backbone.modules()]
        return sum((term(criterion) for term in terms if callable(term)), start=self.head.weight.new_zeros(()))


def build(
    backbone: str,
    variant: str,
    attention: str,
    frames: int,
    classes: int,
    dropout: float = 0.0,
    knobs: Mapping[str, Any] | None = None,
    weights: Path | None = None,
    planes: int = 3,
    head_std: float | None = 0.001,
) -> VideoNet:
    """Build a VideoNet from the names of a backbone and an attention.

    Args:
        backbone: name of the backbone.
        variant: of the backbone.
        attention: name of the attention.
        frames: T.
        classes: number of classes.
        dropout: before the classifier.
        knobs: keyword arguments of the attention's attach().
        weights: file as in load_weights(). It is read by the plain backbone's names, before the attention is attached;
            a file with the attention's weights too, or of a net for flow, is read after.
        planes: of a frame. An even number is stacked optical flow (two planes per flow), and the first convolution is
            adapted from RGB's by adapt(). An odd number above 3 is RGB, then flow, for models/layers/two_streams.py's
            net and an attention whose attach() has `streams`.
        head_std: deviation of the classifier's initial weights; None is torch's default.

    Raises:
        ValueError: A backbone, variant, attention or knob is unknown; a knob has the wrong type; the attention does not
            match the backbone or two streams; or the weights do not fit.
    """
    plugin = named("backbone", backbone)
    net = VideoNet(plugin.build(variant), frames, classes, dropout, head_std)
    file = read(weights) if weights else {}
    state = ours(net, file)
    problem = misfit(net, state) if file else ""
    if file and not problem:
        fill(net, state)
    attach = named("attention", attention).attach
    _check_knobs(attention, attach, knobs or {})
    if planes % 2 == 0:
        adapt(net.backbone, planes)
    elif planes > 3:
        if "streams" not in inspect.signature(attach).parameters:
            raise ValueError(f"attention {attention!r} takes RGB or flow by itself; istpa takes both (input rgb+flow)")
        flow = plugin.build(variant)
        if file and not problem:
            flow.load_state_dict(net.backbone.state_dict())
        adapt(flow, planes - 3)
        net.backbone = TwoStreams(net.backbone, flow)
    net.mean, net.std, net.channels = net.backbone.mean, net.backbone.std, net.backbone.channels

    plain = set(net.parameters())
    # An attention module with a classifier reads the number of classes here.
    net.backbone.classes = classes
    net.backbone = attach(net.backbone, frames, **(knobs or {}))
    if net.head.in_features != net.backbone.features:
        net.head = _head(net.backbone.features, classes, head_std)
    net.attention_parameters = frozenset(
        f"backbone.{name}" for name, value in net.backbone.named_parameters() if value not in plain
    )

    if file and problem:
        state = ours(net, file)
        if planes != 3 or any(name in state for name in net.attention_parameters):
            problem = misfit(net, state)
        if problem:
            raise ValueError(f"{weights} does not fit {backbone} {variant}, {attention}: {problem}")
        fill(net, state)
    return net


def load_weights(net: VideoNet, path: Path, whole: bool = False) -> None:
    """Load a file of weights; its names and shapes must be the backbone's.

    models/weights.py lists the names it may have. A classifier of other classes is left out, and the head stays as it
    is; for a `whole` net that is an error.

    Raises:
        ValueError: The file is absent or no dict of tensors; a tensor is not floating or not finite; or names or shapes
            differ from the backbone's. The message names the first.
    """
    state = ours(net, read(path))
    if problem := misfit(net, state):
        raise ValueError(f"{path} does not fit: {problem}")
    if not fill(net, state) and whole:
        other = f"one of {len(state['head.weight'])}" if "head.weight" in state else "none"
        raise ValueError(f"{path} has no classifier of {net.head.out_features} classes, but {other}")


def _head(features: int, classes: int, std: float | None) -> nn.Linear:
    """Build the head: (N, features) -> (N, classes).

    Weights have deviation `std`, biases are 0. None is torch's default, as in Hara's code. 0.001 is TSN's, TSM's and
    ACTION-Net's: all start at the loss of a uniform guess, and a fresh head's first gradients leave pre-trained
    features alone. 0.01 is TPN's.
    """
    head = nn.Linear(features, classes)
    if std is not None:
        nn.init.normal_(head.weight, std=std)
        nn.init.zeros_(head.bias)
    return head


def _check_knobs(attention: str, attach: Any, knobs: Mapping[str, Any]) -> None:
    """Check knobs against attach().

    Raises:
        ValueError: attach() lacks a knob, or its value has the wrong type.
    """
    keywords = [p for p in inspect.signature(attach).parameters.values() if p.kind is p.KEYWORD_ONLY]
    types = {p.name: get_origin(p.annotation) or p.annotation for p in keywords}
    for name, value in knobs.items():
        if name not in types:
            raise unknown(f"knob of attention {attention!r}", name, types)
        expected = types[name]
        kinds = (int, float) if expected is float else expected  # 0 is as good as 0.0
        if not isinstance(value, kinds) or any(isinstance(value, kind) != (expected is kind) for kind in (str, bool)):
            raise ValueError(
                f"attention {attention!r}: knob {name} is {value!r}; it must be of type {expected.__name__}"
            )
