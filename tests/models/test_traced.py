"""Networks by torch.export and torch.compile give the outputs of the originals."""

import io
import shutil
from collections.abc import Iterable, Iterator
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from models import video
from models.registry import named
from tests.support.nets import pairs
from tests.support.nets.pairs import build, clips, loss_of, smallest

PAIRS = pairs.pairs()


@cache
def layout(backbone: str) -> str:
    with torch.device("meta"):
        return named("backbone", backbone).build(smallest(backbone)).layout


def fits(pair: pairs.Pair) -> bool:
    try:
        with torch.device("meta"):
            return bool(video.build(pair[0], smallest(pair[0]), pair[1], 4, classes=5, knobs=pair[2]))
    except ValueError:
        return False


def cover() -> Iterator[pairs.Pair]:
    """Return each attention on the first backbone of each layout that takes it, and each plain backbone."""
    seen = set()
    for pair in sorted(PAIRS, key=lambda pair: (not pair[0].startswith("resnet"), pair[0])):
        kind = (layout(pair[0]), pair[1], pair[0] if pair[1] == "none" else "")
        if kind not in seen and fits(pair):
            seen.add(kind)
            yield pair


COVER = list(cover())
FIRST = list({pair[1]: pair for pair in reversed(COVER)}.values())  # each attention once


GRADIENTS = [pair for pair in FIRST if pair[1] in ("st_manet", "tsm", "tpn")]  # with a backward pass of our own


def traced(quick: Iterable[pairs.Pair], every: Iterable[pairs.Pair] = PAIRS) -> pytest.MarkDecorator:
    """Parametrize over all pairs, or `every`; those that are not `quick` are marked slow."""
    return pytest.mark.parametrize(
        "pair",
        [pytest.param(pair, id=pairs.name(pair), marks=() if pair in quick else pytest.mark.slow) for pair in every],
    )


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@traced(COVER)
def test_an_exported_net_says_the_same(pair):
    net = build(pair, 4).eval()
    batch = clips(2, 4)
    with torch.no_grad():
        exported = torch.export.export(net, (batch,))
        file = io.BytesIO()
        torch.export.save(exported, file)
        file.seek(0)
        close(torch.export.load(file).module()(batch), net(batch))


def compiled(net: nn.Module, backend: str) -> nn.Module:
    """Compile the network as one graph; one C++ file, not one for each kernel, compiles far faster."""
    torch._dynamo.reset()
    options = {"cpp_wrapper": True} if backend == "inductor" else None
    return torch.compile(net, fullgraph=True, backend=backend, options=options)


def check_evaluation(net: video.VideoNet, backend: str) -> None:
    net.eval()
    with torch.no_grad():
        close(compiled(net, backend)(clips(2, 4)), net(clips(2, 4)))


def check_training(net: video.VideoNet, backend: str) -> None:
    """Compare the loss of a training step, including penalties, and its gradients."""
    net.train()
    actual = []
    for form in (compiled(net, backend), net):
        net.zero_grad()
        loss = loss_of(form, net, clips(2, 4))
        loss.backward()
        actual.append([loss.detach(), *(value.grad for value in net.parameters() if value.grad is not None)])
    largest = max(float(value.abs().max()) for value in actual[1])
    for ours, expected in zip(*actual, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-2, atol=1e-3 * largest)


@traced(FIRST)
def test_a_compiled_net_says_the_same(pair):
    check_evaluation(build(pair, 4), "aot_eager")


# Each attention on each layout: what is compiled of a step besides is the backbone's own, met in evaluation.
@traced(GRADIENTS, COVER)
def test_a_compiled_net_trains_alike(pair):
    check_training(build(pair, 4), "aot_eager")


# Torch's own compiler takes long over a net's C++: each attention once, and training where gradients are our own.
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no compiler")
@pytest.mark.parametrize(
    "pair,check",
    [
        pytest.param(pair, check, id=f"{pairs.name(pair)}-{check.__name__}")
        for check, those in ((check_evaluation, FIRST), (check_training, GRADIENTS))
        for pair in those
    ],
)
def test_torchs_own_compiler_makes_the_same_of_it(pair, check):
    check(build(pair, 4), "inductor")
