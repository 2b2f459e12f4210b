"""Errors in params.yaml name the mistyped key and similar ones."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config.load import load, parse
from pipeline.digest import inputs
from pipeline.errors import SHOWN, UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw() -> dict[str, Any]:
    return copy.deepcopy(YAML(typ="safe").load((ROOT / "params.yaml").read_text()))


def test_the_committed_file_parses(raw: dict[str, Any]) -> None:
    params = load(ROOT / "params.yaml")
    assert params.suite == "quick"
    assert set(params.experiments) == set(raw["experiments"])


def test_the_committed_file_is_what_conf_composes() -> None:
    from dvc.utils.hydra import compose_and_dump

    target = ROOT / "data" / "composed.yaml"
    target.parent.mkdir(exist_ok=True)
    try:
        compose_and_dump(str(target), str(ROOT / "conf"), None, "config", str(ROOT / ".dvc"), [])
        assert target.read_text() == (ROOT / "params.yaml").read_text()
    finally:
        target.unlink(missing_ok=True)


@pytest.mark.parametrize("suite", sorted(path.stem for path in (ROOT / "conf" / "suite").glob("*.yaml")))
def test_every_suite_composes_and_parses(suite: str, tmp_path: Path) -> None:
    from dvc.utils.hydra import compose_and_dump

    compose_and_dump(
        str(tmp_path / "params.yaml"), str(ROOT / "conf"), None, "config", str(tmp_path), [f"suite={suite}"]
    )
    params = load(tmp_path / "params.yaml")
    assert params.suite == suite
    named_in_tables = {row for table in params.tables.values() for row in table.rows}
    assert named_in_tables <= {*params.experiments, *params.fusions, *params.trajectories}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("recipes", "quick", "lrr"), 0.1, ["recipes.quick.lrr", "did you mean 'lr'"]),
        (("recipes", "quick", "lr"), "0.1", ["recipes.quick.lr", "number", '"0.1"']),
        (("recipes", "quick", "epochs"), 1.5, ["recipes.quick.epochs", "integer", "1.5"]),
        (("recipes", "quick", "augment", "crop"), "cornr", ["recipes.quick.augment.crop", "'corner'"]),
        (("recipes", "quick", "batch"), 15, ["recipes.quick.batch", "micro_batch"]),
        (("experiments", "tsn", "recipe"), "quik", ["experiments.tsn.recipe", "did you mean 'quick'"]),
        (("experiments", "tsn", "dataset"), "ucf", ["experiments.tsn.dataset", "shapes"]),
        (("experiments", "tsn", "attention"), "tsmm", ["experiments.tsn.attention", "did you mean 'tsm'"]),
        (("experiments", "tsn", "backbone"), "resnt", ["experiments.tsn.backbone", "did you mean 'resnet'"]),
        (("experiments", "tsn", "seeds"), [], ["experiments.tsn", "seeds"]),
        (("tables", "comparison", "rows"), ["tsx"], ["tables.comparison", "did you mean"]),
        (("datasets", "shapes", "decode", "decoder"), "cv2", ["shapes.decode.decoder", "'ffmpeg' or 'decord'"]),
        (("cluster", "worker"), 2, ["cluster.worker", "did you mean 'workers'"]),
        (("cluster", "workers"), 0, ["cluster.workers is 0; it must be a number from 1 on", "[1, 4], or auto"]),
        (("cluster", "workers"), True, ["cluster.workers is true; "]),
        (("cluster", "workers"), "two", ['cluster.workers is "two"; ']),
        (("cluster", "gpus_per_worker"), "all", ['cluster.gpus_per_worker is "all"; it must be at least 0, or auto']),
        (("cluster", "loader_workers"), True, ["cluster.loader_workers is true; it must be from 0 to 1024, or auto"]),
        (("cluster", "workers"), [4, 1], ["cluster.workers is [4, 1]; "]),
        (("cluster", "workers"), [0, 2], ["cluster.workers is [0, 2]; "]),
        (("cluster", "workers"), [1, 2, 3], ["cluster.workers is [1, 2, 3]; "]),
        (("cluster", "workers"), [1, 2.0], ["cluster.workers is [1, 2.0]; "]),
        (("recipes", "quick", "augment", "scales"), [], ["augment.scales is []; it must not be empty"]),
        (("recipe",), {}, ["'recipe'", "did you mean 'recipes'"]),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    raw: dict[str, Any], path: tuple[str, ...], value: Any, words: list[str]
) -> None:
    owner = raw
    for part in path[:-1]:
        owner = owner[part]
    owner[path[-1]] = value
    with pytest.raises(UserError) as caught:
        parse(raw)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(("written", "team"), [(3, (3, 3)), ([1, 4], (1, 4)), ([2, 2], (2, 2))])
def test_workers_are_a_number_or_a_range(raw: dict[str, Any], written: Any, team: tuple[int, int]) -> None:
    raw["cluster"]["workers"] = written
    assert parse(raw).cluster.team == team


def test_a_misspelt_key_is_named(raw: dict[str, Any]) -> None:
    raw["recipes"]["quick"]["lrr"] = raw["recipes"]["quick"].pop("lr")
    with pytest.raises(UserError, match=r"unknown key 'recipes\.quick\.lrr'; did you mean 'lr'"):
        parse(raw)


def test_a_missing_key_is_named(raw: dict[str, Any]) -> None:
    del raw["recipes"]["quick"]["lr"]
    with pytest.raises(UserError, match=r"missing key 'recipes\.quick\.lr'"):
        parse(raw)


def test_of_many_names_only_the_nearest_are_listed(raw: dict[str, Any]) -> None:
    raw["tables"]["comparison"]["rows"] = ["tsnn"]
    with pytest.raises(UserError) as caught:
        parse(raw)
    listed = str(caught.value).split("did you mean 'tsn'? known: ")[1]
    names, others = listed.removesuffix(" more").split(" and ")
    assert names.startswith("tsn, ") and names.count(",") == SHOWN - 1
    assert int(others) == len(raw["experiments"]) - SHOWN


def test_all_missing_keys_of_a_row_are_named_at_once(raw: dict[str, Any]) -> None:
    raw["experiments"] = {"mine": {"dataset": "shapes", "attention": "tsm"}, "empty": {}}
    with pytest.raises(UserError) as caught:
        parse(raw)
    missing, known = str(caught.value).split("; the keys there are: ")
    keys = ", ".join(f"'experiments.mine.{key}'" for key in ("backbone", "variant", "recipe", "protocol"))
    assert missing == f"params: missing keys {keys}" and "knobs" in known


def test_what_a_row_may_leave_out_is_as_if_it_were_written(raw: dict[str, Any], tmp_path: Path) -> None:
    for row in raw["experiments"].values():
        for key, value in {"knobs": {}, "weights": None, "splits": [1], "seeds": [0, 1, 2]}.items():
            if row[key] == value:
                del row[key]
    short = parse(raw)
    assert short == load(ROOT / "params.yaml")
    (tmp_path / "params.yaml").write_text(json.dumps(raw))
    assert inputs.settings(short, tmp_path) == inputs.settings(short, ROOT), "for DVC too, so that nothing is stale"


@pytest.mark.parametrize("text", ["suite: [quick", "", "just text", "suite: quick\n\tx: 1\n"])
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match="damaged") as caught:
        load(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


def test_an_absent_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="project's root"):
        load(tmp_path / "params.yaml")


def test_flow_has_no_other_order(raw: dict[str, Any]) -> None:
    raw["protocols"]["center"]["probes"] = ["reversed"]
    assert parse(raw).protocols["center"].probes == ("reversed",)
    raw["recipes"]["quick"]["input"] = "flow"
    raw["datasets"]["shapes"]["decode"]["flow"] = {"algorithm": "dis"}
    with pytest.raises(UserError, match=r"protocols\.center must have order forward and no probes"):
        parse(raw)
    raw["protocols"]["center"] |= {"probes": [], "order": "sideways"}
    with pytest.raises(UserError, match=r"protocols\.center\.order"):
        parse(raw)
