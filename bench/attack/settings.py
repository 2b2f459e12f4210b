"""Names and numbers of params.yaml as input, and the file itself."""

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bench.attack.judge import Attack
from pipeline.config import load

ROOT = Path(__file__).parents[2]
RAW: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
GOOD = ("tsn", "r2plus1d", "TSM-8f", "my_videos", "a+b", "0", "_x", "n" * 100, "tsn-0_5")
BAD = (
    *("", ".", "..", "a/..", "/etc", "../x", "a/b", "a\\b", "tsn 8f", "r(2+1)d", "tsn-0.5", "my.videos", "tsn@1"),
    *("x;touch pwned", "$(touch pwned)", "`id`", "$HOME", "a&b", "a|b", "a>b", "a'b", 'a"b', "a\nb", "a\tb", "*", "?"),
    *("-rf", "+x", "~", "#x", "ü", "日本", "e\u0301", "a\0b", "\u202ex", "n" * 101, "n" * 5000),
    *("${suite}", "a%41", "a:b"),
    *("[x]", "{x}", "a=b", "a,b", "!x", "^x", " ", "x ", " x", "null\n", "a\u00a0b", "\ufeffx"),
)
KINDS = ("experiments", "datasets", "recipes", "protocols", "tables", "suite")
NAN, INF = float("nan"), float("inf")
WHOLE = (0, -1, 2**31, 2**70, 1.5, "3", None, True)
REAL = (NAN, INF, -INF, -0.1, "x", None)
FIELDS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys([f"recipes.quick.{name}" for name in ("epochs", "batch", "micro_batch", "frames", "size")], WHOLE),
    "recipes.quick.lr": (*REAL, 0.0),
    "recipes.quick.momentum": (*REAL, 1.0, 2.0),
    "recipes.quick.weight_decay": REAL,
    "recipes.quick.dropout": (*REAL, 1.0, 1.5),
    "recipes.quick.factor": (*REAL, 0.0),
    "recipes.quick.label_smoothing": (*REAL, 1.0),
    "recipes.quick.clip_grad": (-1.0, 0.0, NAN, INF),
    "recipes.quick.warmup_epochs": (-1, 0.5, NAN),
    "recipes.quick.steps": ([0], [2, 2], [-1]),
    "recipes.quick.augment.mixup": (-0.1, NAN, INF),
    "protocols.center.clips": (0, -1, 2**31),
    "protocols.center.batch": (0, NAN),
    "protocols.center.size": (0, 10**9),
    "experiments.tsn.seeds": ([0, 0], [-1], [2**70], [], [0.5]),
    "experiments.tsn.splits": ([1, 1], [0], []),
    "datasets.shapes.decode.max_failed": (NAN, -0.1, 5.0),
    "datasets.shapes.decode.short_side": (0, -1, 10**6),
    "datasets.shapes.decode.quality": (0, 101),
    "datasets.shapes.decode.videos_per_shard": (0, -4),
    "datasets.shapes.options": ({"train": 0, "test": 8}, {"train": 8, "test": -8}, {"train": 10**12, "test": 8}),
    "cluster.workers": (0, [2, 1], [1, 2, 3], NAN),
    "cluster.cpus_per_worker": (0, -1),
    "cluster.gpus_per_worker": (-1.0, NAN),
    "cluster.loader_workers": (-1, 10**6),
    "cluster.max_failures": (-1,),
    "fusions.f": ({"rows": {"tsn": NAN}}, {"rows": {"tsn": -1.0}}, {"rows": {}}, {"rows": {"tsn": 0.0}}),
}
RIGHT: dict[str, Any] = {
    "recipes.quick.epochs": 1,
    "recipes.quick.lr": 1e-9,
    "recipes.quick.momentum": 0.0,
    "recipes.quick.dropout": 0.99,
    "recipes.quick.clip_grad": None,
    "experiments.tsn.seeds": [0, 2**32 - 1],
    "datasets.shapes.decode.max_failed": 1.0,
    "datasets.shapes.decode.quality": 100,
    "cluster.workers": [1, 4],
}
TEXTS: dict[str, str] = {
    "an alias bomb": "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "an alias of itself": "a: &a [*a]\n",
    "10,000 brackets": "a: " + "[" * 10_000,
    "a tag that makes an object": "a: !!python/object/apply:os.system ['touch PWNED']\n",
    "a key twice": "suite: quick\nsuite: quick\n",
    "nothing": "",
    "a list": "- 1\n",
    "a tab": "a:\n\tb: 1\n",
    "zeros": "\0" * 100,
    "a merge conflict": "<<<<<<< HEAD\nsuite: a\n=======\nsuite: b\n>>>>>>> x\n",
}


def names(rng: random.Random) -> Iterator[Attack]:
    for name in GOOD:
        yield _name(rng.choice(KINDS), name, "right")
    for name in BAD:
        yield _name(rng.choice(KINDS), name, "line")


def numbers(rng: random.Random) -> Iterator[Attack]:
    for path, value in RIGHT.items():
        yield _value(path, value, "right")
    for path, values in FIELDS.items():
        for value in values:
            yield _value(path, value, "line")
    for words, text in TEXTS.items():
        yield Attack("numbers", f"params.yaml: {words}", "line", lambda folder, text=text: _file(folder, text))


def _name(kind: str, name: str, wants: str) -> Attack:
    def act(_: Path) -> str:
        raw = copy.deepcopy(RAW)
        if kind == "suite":
            raw["suite"] = name
        else:
            raw[kind] = {**raw[kind], name: copy.deepcopy(next(iter(raw[kind].values())))}
        params = load.parse(raw)
        return "" if kind == "suite" or name in getattr(params, kind) else "it is missing"

    return Attack("names", f"{kind}: {name[:60]!r}", wants, act)


def _value(path: str, value: Any, wants: str) -> Attack:
    def act(_: Path) -> str:
        raw: dict[str, Any] = copy.deepcopy(RAW)
        *owners, last = path.split(".")
        place = raw
        for owner in owners:
            place = place.setdefault(owner, {})
        place[last] = value
        params = load.parse(raw)
        if path == "datasets.shapes.options":
            from pipeline.datasets import shapes

            shapes.plan(params.datasets["shapes"].options)
        return ""

    return Attack("numbers", f"{path}: {value!r}"[:100], wants, act)


def _file(folder: Path, text: str) -> str:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    load.load(path)
    return "was accepted"
