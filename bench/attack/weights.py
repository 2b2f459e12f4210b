"""Files of weights as input: whole, cut, flipped, of odd types, and other files."""

import io
import os
import pickle
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bench.attack.archives import zipped
from bench.attack.changes import Change, cut, flip
from bench.attack.judge import Attack
from models import weights
from models.video import VideoNet, build
from pipeline.download.weights import fetch
from pipeline.errors import UserError

State = dict[str, Any]
FLIPS = 8


def attacks(rng: random.Random) -> Iterator[Attack]:
    yield _attack("a state dict", "right", lambda state: state)
    yield _attack("under state_dict, with an epoch", "right", lambda state: {"state_dict": state, "epoch": 3})
    yield _attack(
        "names with module.", "right", lambda state: {f"module.{name}": value for name, value in state.items()}
    )
    yield _attack("an older format", "right", lambda state: state, old=True)
    for kind in (torch.float64, torch.float16, torch.bfloat16):
        yield _attack(f"numbers of {kind}", "right", _cast(kind), exact=kind == torch.float64)
    for kind in (torch.int8, torch.uint8, torch.bool, torch.complex64, torch.int32):
        yield _attack(f"numbers of {kind}", "line", _cast(kind))
    for words, value in (("NaN", float("nan")), ("infinity", float("inf")), ("minus infinity", float("-inf"))):
        yield _attack(f"one {words}", "line", _with(value))
    yield _attack("a number beyond float32", "line", _doubles)
    yield _attack("a sparse tensor", "line", _first(lambda value: value.to_sparse()))
    yield _attack("a tensor without values", "line", _first(lambda value: value.to("meta")))
    yield _attack("a quantized tensor", "line", _first(_quantized))
    yield _attack("a tensor lacks", "line", lambda state: dict(list(state.items())[1:]))
    yield _attack("a tensor too many", "line", lambda state: {**state, "backbone.more": torch.zeros(3)})
    yield _attack("another shape", "line", _first(lambda value: value[:1]))
    yield _attack("a number among the tensors", "line", lambda state: {**state, "lr": 0.1})
    yield _attack("names that are numbers", "line", lambda state: dict(enumerate(state.values())))
    yield _attack("an empty dict", "line", lambda state: {})
    yield _attack("a list", "line", lambda state: list(state.values()))
    yield _attack("None", "line", lambda state: None)
    yield _attack("one tensor", "line", lambda state: next(iter(state.values())))
    yield _attack("an expanded tensor", "line", _first(lambda value: torch.zeros(1).expand(1 << 20)))
    for words, content in {
        "an empty file": b"",
        "text": b"<html>sign in to download</html>",
        "a pickle that runs a command": pickle.dumps(Runs()),
        "a pickle of a class": pickle.dumps(random.Random(1)),
        "safetensors": struct.pack("<Q", 2) + b"{}",
        "zeros": bytes(4096),
        "a zip of something else": zipped({"readme.txt": b"hi"}),
        "a zip with a pickle that runs a command": zipped(
            {"archive/data.pkl": pickle.dumps(Runs()), "archive/version": b"3"}
        ),
    }.items():
        yield _attack(words, "line", lambda state: state, change=lambda _, content=content: content)
    for _ in range(4):
        share = rng.random()
        yield _attack(f"cut at {share:.2f}", "line", lambda state: state, change=cut(share))
    for _ in range(FLIPS):
        share, bit = rng.random(), rng.randrange(8)
        yield _attack(f"bit {bit} flipped at {share:.3f}", "either", lambda state: state, change=flip(share, bit))
    yield Attack("weights", "a folder", "line", lambda folder: _read(folder))
    yield Attack("weights", "no file", "line", lambda folder: _read(folder / "none.pt"))
    yield Attack("weights", "a link to /dev/zero", "line", lambda folder: _read(_linked(folder)))
    yield Attack("weights", "a pipe", "line", lambda folder: _read(_pipe(folder)))


class Runs:
    """A class whose pickle runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch PWNED",)


def _attack(
    words: str, wants: str, make: Callable[[State], Any], change: Change = bytes, old: bool = False, exact: bool = True
) -> Attack:
    def act(folder: Path) -> str:
        os.chdir(folder)
        state = _net(0).state_dict()
        buffer = io.BytesIO()
        torch.save(make(state), buffer, _use_new_zipfile_serialization=not old)
        path = folder / "weights.pt"
        path.write_bytes(change(buffer.getvalue()))
        try:
            net = _net(1, fetch(str(path), folder))
        except ValueError as error:
            raise UserError(f"experiments.row: {error}") from None  # as pipeline/train/run.py does
        finally:
            if (folder / "PWNED").exists():
                raise AssertionError("it ran a command")
        loaded = net.state_dict()
        names = [name for name in state if not name.endswith("num_batches_tracked")]
        same = all(torch.equal(loaded[name], state[name]) for name in names)
        near = all(torch.allclose(loaded[name], state[name], atol=1e-2) for name in names)
        return "" if same or (near and not exact) else "the net has other numbers"

    return Attack("weights", words, wants, act)


def _net(seed: int, path: Path | None = None) -> VideoNet:
    torch.manual_seed(seed)
    return build("resnet", "tiny", "none", frames=2, classes=3, dropout=0.0, knobs={}, weights=path)


def _read(path: Path) -> str:
    try:
        weights.read(fetch(str(path), path.parent))
    except ValueError as error:
        raise UserError(str(error)) from None
    return "was accepted"


def _linked(folder: Path) -> Path:
    (folder / "zero.pt").symlink_to("/dev/zero")
    return folder / "zero.pt"


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.pt")
    return folder / "pipe.pt"


def _cast(kind: torch.dtype) -> Callable[[State], State]:
    return lambda state: {
        name: value
        if name.endswith("tracked")
        else (value * 10).to(kind)
        if kind.is_signed is False
        else value.to(kind)
        for name, value in state.items()
    }


def _with(number: float) -> Callable[[State], State]:
    def make(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value.view(-1)[-1] = number
        return value

    return _first(make)


def _first(make: Callable[[torch.Tensor], Any]) -> Callable[[State], State]:
    def changed(state: State) -> State:
        name = next(iter(state))
        return {**state, name: make(state[name])}

    return changed


def _doubles(state: State) -> State:
    name = next(iter(state))
    return {**state, name: state[name].double() + 1e300}


def _quantized(value: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)
