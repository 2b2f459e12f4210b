"""A change restales the rows it touches and no others: the real dvc.yaml, with stand-ins for what its stages do."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
STAND_IN = """
import sys
from pathlib import Path
stage, key = (sys.argv[1:] + [""])[:2]
outs = {
    "download": [f"data/raw/{key}/manifest.csv"],
    "decode": [f"data/frames/{key}/index"],
    "splits": [f"data/splits/{key}/split"],
    "train": [f"data/runs/{key}/weights", f"data/logs/{key}/log"],
    "evaluate": [f"data/predictions/{key}/table", f"data/costs/{key}.json", f"reports/metrics/{key}.json",
                 f"reports/plots/{key}/curve.csv", f"reports/plots/{key}/confusion.csv"],
    "aggregate": ["reports/tables/quick/table", "reports/figures/quick/figure"],
}
for out in map(Path, outs[stage]):
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("{}" if out.suffix == ".json" else f"{stage} {key}")
"""


def dvc(folder: Path, *arguments: str) -> str:
    command = [Path(sys.executable).parent / "dvc", *arguments]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it is after a whole `dvc repro` of suite quick."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("models", "pipeline", "cluster", "stages", "reports/papers", "reports/templates"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", ".dvcignore", "reports/parity.csv"):
        shutil.copy(ROOT / name, folder / name)
    stages = (ROOT / "dvc.yaml").read_text()
    (folder / "dvc.yaml").write_text(stages.replace("python -m stages.", "python stand_in.py "))
    (folder / "stand_in.py").write_text(STAND_IN)
    dvc(folder, "init", "--no-scm", "-q")
    dvc(folder, "repro", "-q")
    return folder


def stale(folder: Path) -> set[str]:
    return set(json.loads(dvc(folder, "status", "--json")))


def rows(project: Path, having: Callable[[dict], bool]) -> set[str]:
    return {name for name, row in parameters(project)["experiments"].items() if having(row)}


def parameters(project: Path) -> dict:
    return YAML(typ="safe").load((project / "params.yaml").read_text())


def changed(project: Path, change: Callable[[dict], None]) -> set[str]:
    """What a change of params.yaml restales; the file is put back."""
    path = project / "params.yaml"
    before, params = path.read_text(), parameters(project)
    change(params)
    with path.open("w") as file:
        YAML(typ="safe").dump(params, file)
    try:
        return stale(project)
    finally:
        path.write_text(before)


def edited(project: Path, name: str) -> set[str]:
    """What an edit of a file restales; the file is put back."""
    path = project / name
    before = path.read_text() if path.exists() else None
    path.write_text((before or "") + "\n# edited\n")
    try:
        return stale(project)
    finally:
        path.unlink() if before is None else path.write_text(before)


def test_nothing_is_stale_after_a_run(project: Path) -> None:
    assert stale(project) == set()


def test_a_learning_rate_restales_its_recipes_rows(project: Path) -> None:
    found = changed(project, lambda params: params["recipes"]["quick"].update(lr=0.123))
    assert found == {f"train@{row}" for row in rows(project, lambda row: row["recipe"] == "quick")} | {"aggregate"}


def test_another_recipe_restales_nothing_but_the_tables(project: Path) -> None:
    found = changed(project, lambda params: params["recipes"].update(other=params["recipes"]["quick"]))
    assert found <= {"aggregate"}


def test_editing_an_attention_restales_its_rows(project: Path) -> None:
    wanted = rows(project, lambda row: row["attention"] == "action")
    assert wanted and wanted != set(parameters(project)["experiments"])
    found = edited(project, "models/attention/action.py")
    assert found == {f"{stage}@{row}" for stage in ("train", "evaluate") for row in wanted}


def test_a_new_attention_restales_nothing(project: Path) -> None:
    assert edited(project, "models/attention/brand_new.py") == set()


def test_the_cluster_restales_nothing(project: Path) -> None:
    def change(params: dict) -> None:
        params["cluster"].update(workers=2, address="auto", max_failures=9, storage="elsewhere")

    assert changed(project, change) == set()


def test_a_rows_own_settings_restale_it_alone(project: Path) -> None:
    def more_seeds(params: dict) -> None:
        params["experiments"]["tsm"]["seeds"] = [0, 1, 2]

    assert changed(project, more_seeds) == {"train@tsm", "aggregate"}


def test_a_protocol_restales_evaluations_alone(project: Path) -> None:
    found = changed(project, lambda params: params["protocols"]["center"].update(clips=3))
    assert found == {f"evaluate@{row}" for row in parameters(project)["experiments"]} | {"aggregate"}


def test_how_videos_are_decoded_restales_the_decoding(project: Path) -> None:
    found = changed(project, lambda params: params["datasets"]["shapes"]["decode"].update(quality=80))
    assert found == {"decode@shapes"}


def test_tables_and_pictures_need_no_training(project: Path) -> None:
    assert edited(project, "pipeline/figures.py") == {"aggregate"}
    assert not {stage for stage in edited(project, "pipeline/tables.py") if stage.startswith("train")}
