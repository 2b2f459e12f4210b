"""The papers' nets at the papers' sizes, in bench/models.py's versions."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.straightforward import NothingInPlace, straighten
from models import video
from models.memory_format import channels_last


class Net(NamedTuple):
    """A paper's net: its construction, and the clips it sees."""

    backbone: str
    variant: str
    attention: str
    clips: int
    frames: int
    size: int
    classes: int
    knobs: dict[str, Any] = {}  # noqa: RUF012


NETS = {
    "TSM": Net("resnet", "50", "tsm", 2, 8, 224, 174),
    "ACTION-Net": Net("resnet", "50", "action", 2, 8, 224, 174),
    "EAM": Net("resnet3d", "50", "eam", 4, 16, 112, 51),
    "TPN": Net("resnet", "50", "tpn", 1, 8, 224, 174),
    "MAAGN": Net("resnet", "50", "maagn", 1, 8, 224, 174),
    "ISTPA": Net("inception_resnet_v2", "slim", "istpa", 1, 3, 299, 101, {"positions": 8}),
    "ST-MANet": Net("resnet3d", "50", "st_manet", 1, 32, 112, 101),
}
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
SCALE = 4 if CUDA else 1
PASSES = ("forward", "training")
VERSIONS = ("straightforward", "ours", "bf16")
COMPILED = "bf16, compiled"


def agree(name: str) -> None:
    """Raise ValueError if the versions do not give the same logits."""
    # In double precision: in deep nets the rounding of single precision may look like another net.
    ours, other = (
        passes(NETS[name]._replace(clips=1), version, torch.double)["forward"]() for version in VERSIONS[1::-1]
    )
    if not (off := (ours - other).abs().max() / other.abs().max()) < 1e-8:
        raise ValueError(f"logits of the two versions are {off:.1e} apart")


def built(net: Net) -> video.VideoNet:
    return video.build(net.backbone, net.variant, net.attention, net.frames, net.classes, knobs=net.knobs)


def passes(net: Net, version: str, dtype: torch.dtype = torch.float) -> dict[str, Callable[[], Any]]:
    """Return PASSES -> a function that runs one of a version.

    "forward" gives the logits.
    """
    torch.manual_seed(0)
    model = built(net).to(dtype)
    n = net.clips * SCALE
    clips = torch.randn(n, net.frames, net.size, net.size, 3, device=DEVICE, dtype=dtype).permute(0, 1, 4, 2, 3)
    if plain := version == "straightforward":
        straighten(model)
        clips = clips.contiguous()
        if model.backbone.layout == "volume":
            clips = clips.transpose(1, 2).contiguous().transpose(1, 2)
        model.to(DEVICE)
    else:
        channels_last(model.to(DEVICE))
    run: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False) if "compiled" in version else model
    sgd = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    labels = torch.arange(n, device=DEVICE)

    def criterion(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels)

    def how() -> contextlib.AbstractContextManager:
        if plain:
            return NothingInPlace()
        return torch.autocast(DEVICE.type, torch.bfloat16) if "bf16" in version else contextlib.nullcontext()

    def forward() -> Tensor:
        model.eval()
        with torch.no_grad(), how():
            return run(clips)

    def training() -> None:
        model.train()
        sgd.zero_grad(set_to_none=True)
        with how():
            logits = run(clips)
        (criterion(logits) + model.penalty(criterion)).backward()
        sgd.step()

    return {"forward": forward, "training": training}
