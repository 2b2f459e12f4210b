"""Invalid names and numbers in params.yaml give a one-line error when it is read."""

import copy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config.load import load, parse
from pipeline.errors import UserError

ROOT = Path(__file__).parents[2]
RAW = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
NAN, INF = float("nan"), float("inf")


def refused(raw: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        parse(raw)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(path: str, value: Any) -> dict[str, Any]:
    raw: dict[str, Any] = copy.deepcopy(RAW)
    *owners, last = path.split(".")
    place = raw
    for owner in owners:
        place = place.setdefault(owner, {})
    place[last] = value
    return raw


NUMBERS = {
    "recipes.quick.epochs": [0, -1, 2**31],
    "recipes.quick.batch": [0, -8],
    "recipes.quick.micro_batch": [0, -1],
    "recipes.quick.frames": [0, -1],
    "recipes.quick.size": [0, 10**6],
    "recipes.quick.lr": [NAN, INF, -INF, -0.1, 0.0],
    "recipes.quick.momentum": [2.0, 1.0, -0.1, NAN],
    "recipes.quick.dampening": [1.0, -0.1, NAN],
    "recipes.quick.weight_decay": [-1e-4, NAN, INF],
    "recipes.quick.dropout": [1.5, 1.0, -0.1, NAN],
    "recipes.quick.stride": [0, -1],
    "recipes.quick.stack": [0],
    "recipes.quick.clip_grad": [-1.0, 0.0, NAN, INF],
    "recipes.quick.warmup_epochs": [-1],
    "recipes.quick.label_smoothing": [2.0, 1.0, -0.1, NAN],
    "recipes.quick.factor": [NAN, 0.0, -0.1, INF],
    "recipes.quick.steps": [[2, 2], [0], [-1]],
    "recipes.quick.augment.scales": [[], [0.0], [1.5], [NAN]],
    "recipes.quick.augment.mixup": [-0.1, NAN, INF],
    "recipes.quick.augment.max_distort": [-1],
    "recipes.quick.groups": [[{"kind": "norm", "lr": -1.0}], [{"kind": "norm", "decay": NAN}]],
    "protocols.center.clips": [0, -1],
    "protocols.center.batch": [0],
    "protocols.center.size": [0],
    "protocols.center.frames": [0],
    "protocols.center.stride": [0],
    "experiments.tsn.seeds": [[0, 0], [-1], [2**70], [2**32], []],
    "experiments.tsn.splits": [[1, 1], [0], [-1], []],
    "datasets.shapes.decode.max_failed": [-1.0, 5.0, NAN],
    "datasets.shapes.decode.short_side": [0, 70_000],
    "datasets.shapes.decode.quality": [0, 101],
    "datasets.shapes.decode.videos_per_shard": [0],
    "datasets.shapes.decode.flow": [{"algorithm": "dis", "bound": 0.0}, {"algorithm": "dis", "bound": NAN}],
    "cluster.loader_workers": [-1, 10**6],
    "cluster.cpus_per_worker": [0],
    "cluster.gpus_per_worker": [-1.0, NAN, INF],
    "cluster.max_failures": [-1],
    "cluster.workers": [2**40],
    "tier.subset": [{"classes": 0, "train": 1, "test": 1}, {"classes": 1, "train": -1, "test": 1}],
    "tier.seeds": [[0, 0], [-1]],
    "tier.splits": [[1, 1]],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in NUMBERS.items() for value in values], ids=str
)
def test_a_number_out_of_its_range_is_named_with_it(key: str, value: Any) -> None:
    message = refused(changed(key, value))
    assert key in message and "; it must " in message


@pytest.mark.parametrize(
    ("key", "value"), [("cluster.storage", ""), ("cluster.address", ""), ("suite", ""), ("datasets.shapes.source", "")]
)
def test_an_empty_text_is_named(key: str, value: str) -> None:
    assert key in refused(changed(key, value))


@pytest.mark.parametrize("weight", [0.0, -1.0, NAN, INF])
def test_weights_of_a_fusion_are_above_zero_and_finite(weight: float) -> None:
    assert "fusions.both.rows.tsn" in refused(changed("fusions", {"both": {"rows": {"tsn": weight, "tsm": 1.0}}}))
    outside = {"rows": {"tsn": 1.0}, "outside": {"a.parquet": weight}}
    assert "fusions.both.outside" in refused(changed("fusions", {"both": outside}))
    assert "fusions.both.rows" in refused(changed("fusions", {"both": {"rows": {}}}))


@pytest.mark.parametrize("rows", [[], ["tsn", "tsn"]])
def test_rows_of_a_table_are_there_once(rows: list[str]) -> None:
    assert "tables.comparison.rows" in refused(changed("tables.comparison.rows", rows))


@pytest.mark.parametrize(("momentum", "dampening"), [(0.9, 0.9), (0.0, 0.0)])
def test_nesterov_needs_a_momentum_without_dampening(momentum: float, dampening: float) -> None:
    settings = {"nesterov": True, "momentum": momentum, "dampening": dampening}
    message = refused(changed("recipes.quick", RAW["recipes"]["quick"] | settings))
    assert "recipes.quick.nesterov is true, which needs a momentum and no dampening" in message
    assert f"momentum is {momentum:g}, dampening {dampening:g}" in message


def test_whole_numbers_may_stand_for_others() -> None:
    assert parse(changed("recipes.quick.lr", 1)).recipes["quick"].lr == 1


BAD = [
    "r(2+1)d",
    "tsn 8f",
    "tsn-0.5",
    "tsn&tsm",
    "x;touch pwned",
    "$HOME",
    "$(touch pwned)",
    "tsn@1",
    "my.videos",
    "a/b",
]
BAD += ["..", ".", "", "-x", "+x", "a\nb", "ü", "a'b", 'a"b', "a`b`", "a*", "~", "a" * 101, "null\0", "a\\b", "%41"]


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_names_that_a_shell_or_a_file_system_reads_otherwise_are_refused(name: str) -> None:
    for kind, member in {
        "experiments": "tsn",
        "datasets": "shapes",
        "recipes": "quick",
        "protocols": "center",
        "tables": "comparison",
    }.items():
        raw: dict[str, Any] = copy.deepcopy(RAW)
        raw[kind] = {**raw[kind], name: raw[kind][member]}
        message = refused(raw)
        assert message.startswith(f"params: {kind}: ") and "letters, digits" in message
    assert "suite" in refused(changed("suite", name))
    assert "fusions" in refused(changed("fusions", {name: {"rows": {"tsn": 1.0, "tsm": 1.0}}}))
    assert "trajectories" in refused(changed("trajectories", {name: {"dataset": "shapes", "splits": [1]}}))


@pytest.mark.parametrize("name", ["r2+1d", "tsn_8f", "TSN-50", "_x", "0", "a" * 100])
def test_names_of_letters_digits_and_three_signs_are_taken(name: str) -> None:
    raw = copy.deepcopy(RAW)
    raw["experiments"][name] = raw["experiments"]["tsn"]
    assert name in parse(raw).experiments


BOMBS = {
    "lists": "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(12)),
    "merges": "a: &a {x: 1}\n"
    + "".join(f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [{', '.join([f'*{chr(97 + n)}'] * 9)}]}}\n" for n in range(12)),
    "depth": "a: " + "[" * 5000 + "]" * 5000,
    "length": "a: [" + "0, " * 300_000 + "0]",
    "itself": "a: &a [*a]\n",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_that_unfolds_to_gigabytes_is_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(BOMBS[kind])
    with pytest.raises(UserError) as caught:
        load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("value", ["2024-01-01", "!!binary aGk=", "!!set {a}", "{[1]: 2}"])
def test_values_that_only_yaml_knows_are_a_line(tmp_path: Path, value: str) -> None:
    text = (ROOT / "params.yaml").read_text().replace("source: generated", f"source: {value}")
    (tmp_path / "params.yaml").write_text(text)
    try:
        load(tmp_path / "params.yaml")
    except UserError as error:
        assert "\n" not in str(error)
