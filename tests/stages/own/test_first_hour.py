"""A newcomer's first hour: the documented commands on a bare clone with eight drawn videos.

With ACTIONBENCH_TRANSCRIPT=docs/first-hour.md, the slow test writes its transcript there.
"""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from pipeline.executable import ffmpeg_exe

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/first-hour.md"
ROWS = ["mine-tsn", "mine-tsm", "mine-action"]
WITH_GATE = [*ROWS, "mine-gate"]
MOST = 40  # lines of an output that the transcript shows
HEAD = """\
# A first hour

A bare clone with eight drawn videos of two classes, on two cores. Two epochs on six videos teach a network
nothing; they show that everything runs. A test plays these commands, checks every output and writes this page.
"""
# DVC warns of outputs that a fresh clone lacks; progress and other machines' numbers differ each time.
NOISE = re.compile(
    r"^WARNING: No file hash|^Updating lock file|, \d+\.\d+/s, |^$|^```|^To apply the results|^\tdvc exp apply|^  warn"
)
SAME = [
    (r"\bin [\d.]+ (s|min)\b", "in N s"),
    (r"[\d.]+ frames/s", "N frames/s"),
    (r"(?m)^(mine-\S+ +)[\d.]+ *$", r"\1N"),  # clips/s
    (r"([Ee]xperiment(?:\(s\):)?) '?[a-z]{4,6}-[a-z]{4,6}'?", r"\1 <name>"),
    (r"\b[0-9a-f]{7,64}(\.dir)?\b", "<digest>"),
    (r"\d\d:\d\d (AM|PM)", "<time>"),
]


@dataclass(frozen=True)
class Step:
    """A command of the newcomer, and what must come of it."""

    about: str
    command: str
    check: Callable[[Path, str], None]
    keep: str = ""  # a regular expression: the lines of the output that the transcript shows; default: all
    edit: Callable[[Path], None] = lambda clone: None  # what the newcomer edits before

    def shown(self, out: str, clone: Path) -> str:
        """Return the lines that the transcript shows, without what differs from run to run."""
        for old, new in [(re.escape(str(clone)), "."), *SAME]:
            out = re.sub(old, new, out)
        lines = [line.rstrip() for line in out.splitlines() if not NOISE.search(line)]
        kept = [line for line in lines if re.search(self.keep, line)]
        if len(kept) > MOST:
            kept = [*kept[: MOST // 2], "...", *kept[-MOST // 2 :]]
        elif len(kept) < len(lines):
            kept = [*kept, "..."]
        return "\n".join([f"$ {self.command}", *kept])


def draw(folder: Path) -> None:
    """Draw four videos of a square that goes left, and four of one that goes right."""
    for name, number in product(("left", "right"), range(4)):
        path = folder / "data/videos/mine" / name / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        x = f"{60 if name == 'left' else 20}{'-' if name == 'left' else '+'}40*t-2*{number}"
        graph = f"color=gray:96x72:12:1.2[a];color=white:16x16:12:1.2[b];[a][b]overlay=x={x}:y={20 + 4 * number}"
        subprocess.run([ffmpeg_exe()[0], "-v", "error", "-f", "lavfi", "-i", graph, str(path)], check=True)


def set_epochs(clone: Path) -> None:
    replace(clone / "conf/suite/mine.yaml", "mine: {batch: 2,", "mine: {epochs: 2, batch: 2,")


def add_gate(clone: Path) -> None:
    """Add the module of docs/your-module.md and a row with it."""
    (code,) = re.findall(r"^```python\n(.*?)^```", (clone / "docs/your-module.md").read_text(), re.M | re.S)
    (clone / "models/attention/gate.py").write_text(code)
    suite = clone / "conf/suite/mine.yaml"
    row = "  mine-action: {<<: *tsn, attention: action}\n"
    replace(suite, row, row + "  mine-gate: {<<: *tsn, attention: gate}\n")
    replace(
        suite,
        "base: mine-tsn, rows: [mine-tsm, mine-action]",
        "base: mine-tsn, rows: [mine-tsm, mine-action, mine-gate]",
    )
    replace(suite, "rows: [mine-tsn, mine-tsm, mine-action]", "rows: [mine-tsn, mine-tsm, mine-action, mine-gate]")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def has(*words: str) -> Callable[[Path, str], None]:
    def check(_: Path, out: str) -> None:
        assert [word for word in words if word not in out] == [], out

    return check


def records(clone: Path, table: str) -> dict[str, dict[str, str]]:
    with (clone / f"reports/tables/mine/{table}.csv").open(newline="") as file:
        return {line["row"]: line for line in csv.DictReader(file)}


def check_doctor(_: Path, out: str) -> None:
    states = dict(re.findall(r"^(\w+) +(.+?)  ", out, re.M))
    assert "broken" not in states and "suite mine, 3 rows" in out and "1 data sets, no missing videos" in out


def check_run(clone: Path, out: str) -> None:
    stages = [f"{stage}@{row}" for stage in ("train", "evaluate") for row in ROWS]
    for stage in ["download@mine", "decode@mine", "splits@mine", *stages, "aggregate"]:
        assert out.count(f"Running stage '{stage}'") == 1, out
    assert "8 of 8 videos" in out and "mine, split 1: 2 test, 6 train, 2 classes" in out
    assert "Traceback" not in out


def check_report(clone: Path, out: str) -> None:
    for row, values in records(clone, "comparison").items():
        assert row in out and f"{float(values['top1']):.1f} [" in out
        assert (values["n"], values["seeds"], values["decoded"]) == ("2", "3", "2"), values
    assert "n 2;" in out and "seeds 3;" in out and "can't tell" in out and "reports/tables/mine/" in out


def check_page(clone: Path, _: str) -> None:
    page = (clone / "reports/index.html").read_text()
    island = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    for table in ("comparison", "ablation"):
        assert {line["row"]: line for line in island[f"mine-{table}"]} == records(clone, table)
    for values in records(clone, "comparison").values():
        assert f'data-value="{values["top1"]}"' in page


def check_mlflow(clone: Path, out: str) -> None:
    from mlflow import MlflowClient

    assert "3 rows with 9 runs" in out and "lacked 0 epochs and evaluations" in out
    client = MlflowClient(f"sqlite:///{clone}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'actionbench'")
    runs = {}
    for run in client.search_runs([experiment.experiment_id]):
        parent = run.data.tags.get("mlflow.parentRunId", "")
        runs[run.info.run_id] = (run, parent)
    names = {run.info.run_name for run, _ in runs.values()}
    assert len(runs) == 1 + 3 + 9 and {"mine", *ROWS} <= names
    for run, parent in runs.values():
        assert run.info.status == "FINISHED"
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        if run.info.run_name in ROWS:
            assert {"confusion.svg", "curves.svg", "metrics.json", "params.yaml", "environment.json"} <= files
            top1 = float(records(clone, "comparison")[run.info.run_name]["top1"])
            assert run.data.metrics["test/top1"] == pytest.approx(top1)
            assert runs[parent][0].info.run_name == "mine"
        elif run.info.run_name != "mine":
            assert runs[parent][0].info.run_name in ROWS and run.info.run_name.endswith(tuple("012"))
            assert {"loss", "lr", "epoch", "test/top1"} <= set(run.data.metrics) and len(files) == 2
            assert len(client.get_metric_history(run.info.run_id, "loss")) == 2


def check_predicted(clone: Path, out: str) -> None:
    assert "new.csv: 8 of 8 videos classified, by the mean of 3 networks\n" in out
    with (clone / "new.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["video"] for line in lines] == [f"{c}/{n}.mp4" for c, n in product(("left", "right"), range(4))]
    for line in lines:
        assert line["class"] == line["class_1"] and {line["class_1"], line["class_2"]} == {"left", "right"}
        assert float(line["score_1"]) + float(line["score_2"]) == pytest.approx(1, abs=2e-4) and not line["problem"]


def check_plan(_: Path, out: str) -> None:
    (table,) = re.findall(r"^stage .*?\n\n", out, re.M | re.S)
    assert re.findall(r"^\w+@[\w-]+|^aggregate", table, re.M) == ["train@mine-gate", "evaluate@mine-gate", "aggregate"]


def check_gate(clone: Path, out: str) -> None:
    assert re.findall(r"Running stage '(\w+@.+)'", out) == ["train@mine-gate", "evaluate@mine-gate"]
    assert list(records(clone, "comparison")) == WITH_GATE
    assert records(clone, "ablation")["mine-gate"]["delta_parameters"] > "0"


def check_shown(_: Path, out: str) -> None:
    (line,) = [line for line in out.splitlines() if "[faster]" in line]
    assert "params.yaml:recipes.mine.lr" in out and " 0.01 " in line and " 0.003125 " in out


def check_moved(_: Path, out: str) -> None:
    assert re.match(r"\d+ of 4 cells moved beyond their interval", out)
    for cell in re.split(r"\n\n", out)[1:]:
        assert "recipes.mine.lr" in cell, cell


def check_temporary(clone: Path, out: str) -> None:
    assert re.findall(r"Running stage 'train@(.+)'", out) == WITH_GATE and "Ran experiment(s): faster" in out
    assert not subprocess.check_output(["git", "status", "--short"], cwd=clone)  # the workspace is as it was


def check_queued(clone: Path, out: str) -> None:
    assert "Queued experiment 'views'" in out and "Stage 'train@mine-gate' didn't change, skipping" in out
    assert re.findall(r"Running stage 'evaluate@(.+)'", out) == WITH_GATE


RUN = r"^Reproducing|^Running stage|^\w+ mine|^mine|^tables in|^Ran|: \d+ of \d+ in"
ROW = r"^table|^row|^result|^each run|split 1, seed \d: top|^misclassified|\(split 1"
COMMIT = "git add --all && git commit --quiet --message"
STEPS = [
    Step(
        "Four videos go left, four go right.",
        "find data/videos/mine -type f | sort",
        has("mine/left/0.mp4", "mine/right/3.mp4"),
    ),
    Step(
        "A suite for them:",
        "actionbench new mine data/videos/mine",
        has("conf/suite/mine.yaml: 2 classes, 6 training and 2 test videos", "next: dvc exp run -S suite=mine"),
    ),
    Step(
        "What does a run need?",
        "actionbench doctor --suite mine",
        check_doctor,
        keep="conf/suite|clone|home|sources|weights|tracking",
    ),
    Step(
        "We set `epochs: 2` in the recipe of `conf/suite/mine.yaml`. From the videos to the tables:",
        "dvc exp run -S suite=mine",
        check_run,
        keep=RUN,
        edit=set_epochs,
    ),
    Step("The tables again:", "actionbench report", check_report),
    Step("The page:", "ls reports/index.html reports/tables/mine/*.csv", check_page),
    Step("MLflow has every run; `make mlflow` opens its UI:", "actionbench mlflow sync", check_mlflow),
    Step(
        "The origin of a number:",
        "actionbench explain ablation mine-tsm",
        has("dataset: mine", "split 1, seed 2: top-1", "misclassified in"),
        keep=ROW,
    ),
    Step(
        "Classes of new videos:",
        "actionbench predict mine-action data/videos/mine -o new.csv && cat new.csv",
        check_predicted,
    ),
    Step("We commit the suite and its results:", f"{COMMIT} 'Suite mine'", has()),
    Step(
        "We add `models/attention/gate.py` of [Your own module](your-module.md), and a row to `conf/suite/mine.yaml`:",
        "actionbench models",
        has("attention  gate"),
        keep="^kind|^attention  gate",
        edit=add_gate,
    ),
    Step(
        "Only that row and the tables will run:",
        "dvc exp run -S suite=mine stages/dvc.yaml:inputs && actionbench plan",
        check_plan,
        keep=r"^stage |^\w+@|^aggregate|^Estimated",
    ),
    Step("", "dvc exp run -S suite=mine", check_gate, keep=RUN),
    Step("", f"{COMMIT} 'Attention module gate'", has()),
    Step(
        "Another learning rate, as an experiment in a temporary copy:",
        "dvc exp run --temp --name faster -S suite=mine -S recipes.mine.lr=0.01",
        check_temporary,
        keep=RUN,
    ),
    Step("Compare:", "dvc exp show --md --only-changed --drop 'data|reports|Created|params.yaml$'", check_shown),
    Step(
        "",
        "dvc params diff HEAD faster --targets params.yaml",
        has("recipes.mine.lr", "0.003125", "0.01"),
    ),
    Step("", "actionbench diff HEAD faster --all", check_moved),
    Step(
        "Two clips a video instead of one, by way of DVC's queue. It evaluates the same networks:",
        "dvc exp run --queue --name views -S suite=mine -S protocols.center.clips=2 && dvc exp run --run-all",
        check_queued,
        keep="^Queued|" + RUN,
    ),
    Step("", "dvc params diff HEAD views --targets params.yaml", has("protocols.center.clips")),
    Step("The graph of a row:", "dvc dag --md evaluate@mine-gate", has("mermaid", '"train@mine-gate"')),
]


@pytest.mark.slow
def test_a_first_hour(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    subprocess.run(["git", "switch", "--quiet", "-C", "main"], cwd=clone, check=True)
    draw(clone)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    names = {f"GIT_{who}_{what}": "new@comer" for who, what in product(("AUTHOR", "COMMITTER"), ("NAME", "EMAIL"))}
    variables = {**os.environ, **names, "PATH": path, "PYTHONPATH": str(clone), "COLUMNS": "100"}
    parts = [HEAD]
    for step in STEPS:
        step.edit(clone)
        done = subprocess.run(
            ["bash", "-c", step.command], cwd=clone, env=variables, stdout=-1, stderr=subprocess.STDOUT, text=True
        )
        print(f"$ {step.command}\n{done.stdout}", flush=True)
        assert done.returncode == 0 and "Traceback" not in done.stdout
        step.check(clone, done.stdout)
        parts += [f"{step.about}\n"] * bool(step.about) + [f"```text\n{step.shown(done.stdout, clone)}\n```\n"]
    if target := os.environ.get("ACTIONBENCH_TRANSCRIPT"):
        Path(target).write_text("\n".join(parts), encoding="utf-8")


def test_the_transcript_has_these_commands() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\$ (.*)$", text, re.MULTILINE) == [step.command for step in STEPS]
    assert text.startswith(HEAD) and [step.about for step in STEPS if step.about not in text] == []
    assert "/tmp" not in text and "Traceback" not in text
