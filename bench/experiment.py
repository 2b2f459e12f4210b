"""Time that `dvc exp run` spends outside of its stages.

    python -m bench.experiment [--turns 2]

A clone of this checkout's commit gets a suite of three toy rows on generated videos. After a first `dvc exp run`, each
turn runs one with another learning rate: it trains and evaluates the three rows, then aggregates. The shell that DVC
starts for a stage notes the command's begin and end. "Outside" is the wall-clock time of `dvc exp run` without its
stages' commands: DVC's imports, its checks, its lock, the experiment's commit. The last rows split the stages' time:
what is training proper by the rows' logs, and the rest, which is imports, Ray, nets, evaluation and files.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import report
from bench.running import ROOT, machine, noting_shell, options, stage_seconds, timed

SUITE = """\
# @package _global_
defaults:
  - /dataset@datasets.shapes: shapes
  - /recipe@recipes.quick: quick
  - /protocol@protocols.center: center

suite: toy
datasets: {shapes: {options: {train: 48, test: 40}}}
recipes: {quick: {epochs: 1}}
experiments:
  tsn: &tsn {dataset: shapes, backbone: resnet, variant: tiny, attention: none, recipe: quick, protocol: center}
  tsm: {<<: *tsn, attention: tsm}
  action: {<<: *tsn, attention: action}
tables:
  comparison: {title: Toys, rows: [tsn, tsm, action]}
"""


def main() -> None:
    args = options(__doc__, turns=2)
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as place:
        folder, log = prepare(Path(place))
        print("the first experiment", flush=True)
        experiment(folder, "suite=toy")
        for turn in range(args.turns):
            log.unlink()
            wall = timed(experiment, folder, "suite=toy", f"recipes.quick.lr={0.01 * (turn + 1):g}").wall
            stages = stage_seconds(log)
            within = sum(seconds for _, seconds in stages)
            rows.append(
                {
                    "turn": turn,
                    "wall": wall,
                    "stages": len(stages),
                    "outside": wall - within,
                    "training": trained(folder),
                }
            )
            print(rows[-1], flush=True)
    lines = [
        [what, report.spread(values, ".1f", "")]
        for what, values in {
            "whole command": report.column(rows, "wall"),
            "outside of stages": report.column(rows, "outside"),
            "training proper": report.column(rows, "training"),
            "rest of the stages": [row["wall"] - row["outside"] - row["training"] for row in rows],
        }.items()
    ]
    text = f"Three rows, one run and epoch each, {rows[0]['stages']:.0f} stages a turn; {machine()}."
    report.save("experiment", "What `dvc exp run` spends outside of its stages", text, ["part", "seconds"], lines, rows)


def prepare(place: Path) -> tuple[Path, Path]:
    """Return a clone with the toy suite, and the file that stages' times go to."""
    folder = place / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    (folder / "conf" / "suite" / "toy.yaml").write_text(SUITE)
    for name, value in {"user.name": "bench", "user.email": "bench@localhost"}.items():
        subprocess.run(["git", "config", name, value], cwd=folder, check=True)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    subprocess.run(["git", "commit", "-qm", "toy"], cwd=folder, check=True)
    return folder, noting_shell(place)


def experiment(folder: Path, *settings: str) -> None:
    """Run `dvc exp run` with these settings."""
    tools = Path(sys.executable).parent
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    variables = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(folder),
        "SHELL": str(folder.parent / "sh"),
        "DVC_NO_ANALYTICS": "1",
    }
    flags = [word for setting in settings for word in ("-S", setting)]
    done = subprocess.run(
        [tools / "dvc", "exp", "run", *flags], cwd=folder, env=variables, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])


def trained(folder: Path) -> float:
    """Return the seconds of all epochs of the rows' last runs."""
    logs = (folder / "data" / "tracking").glob("*/*.timings.jsonl")
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return sum(line["seconds"] for line in lines if line["kind"] == "epoch")


if __name__ == "__main__":
    main()
