"""What `dvc repro` would run, and why: DVC's own status, carried downstream along the six stages."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UserError, alternatives
from pipeline.schema import Params

Status = Mapping[str, list[Any]]  # what `dvc status --json` prints
State = Literal["runs", "may run", "restored"]
NEVER = ("never run",)
LEGIBLE = 60  # characters of a param's old and new value that are still shown


@dataclass(frozen=True)
class Step:
    """A stage that isn't up to date.

    "may run": only its inputs' makers run; DVC skips it where they make the same bytes again. "restored": DVC's cache
    holds what it would make.
    """

    stage: str
    state: State
    reasons: tuple[str, ...]
    cells: tuple[str, ...]  # of a row: "split1-seed0", ...; else empty


def dependencies(params: Params) -> dict[str, tuple[str, ...]]:
    """Stage -> the stages it directly depends on, in an order in which they can run; as dvc.yaml says."""
    stages: dict[str, tuple[str, ...]] = {}
    for dataset in params.datasets:
        stages[f"download@{dataset}"] = ()
        stages[f"decode@{dataset}"] = (f"download@{dataset}",)
        stages[f"splits@{dataset}"] = (f"download@{dataset}",)
    for row, experiment in params.experiments.items():
        data = (f"decode@{experiment.dataset}", f"splits@{experiment.dataset}")
        stages[f"train@{row}"] = data
        stages[f"evaluate@{row}"] = (*data, f"train@{row}")
    for row, settings in params.trajectories.items():
        stages[f"trajectories@{row}"] = (f"decode@{settings.dataset}", f"splits@{settings.dataset}")
    read = ("splits", "train", "evaluate", "trajectories")
    stages["aggregate"] = tuple(stage for stage in stages if noun(stage) in read)
    return stages


def noun(stage: str) -> str:
    return stage.partition("@")[0]


def key(stage: str) -> str:
    """The data set or row of a stage; empty for aggregate."""
    return stage.partition("@")[2]


def needed(targets: Iterable[str], stages: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The targets and all that they depend on, in an order in which they can run; without targets, every stage.

    A target is a stage, all stages of a name ("train"), or a row, which is its evaluation. UserError for others.
    """
    wanted = [stage for target in targets for stage in _named(target, stages)] or list(stages)
    found: set[str] = set()
    while wanted:
        stage = wanted.pop()
        if stage not in found:
            found.add(stage)
            wanted += stages[stage]
    return [stage for stage in stages if stage in found]


def steps(
    params: Params, status: Status, lock: Mapping[str, Any], values: Mapping[str, Any], cached: Collection[str] = ()
) -> list[Step]:
    """The stages that aren't up to date, in an order in which they can run.

    `lock` is dvc.lock's stages, `values` params.yaml as it is now, `cached` the stages that DVC would restore.
    """
    stages, stale, found = dependencies(params), set(), []
    for stage in [*stages, *(other for other in status if other not in stages)]:
        makers = [maker for maker in stages.get(stage, ()) if maker in stale]
        direct = reasons(status.get(stage, []), lock.get(stage), values, makers_run=bool(makers))
        if not direct and not makers:
            continue
        stale.add(stage)
        # DVC's word on its cache holds for changed outputs alone: without a run, it looks up a stage's old inputs.
        restored = stage in cached and _outputs_alone(status.get(stage, []))
        state: State = "may run" if not direct else "restored" if restored else "runs"
        because = () if direct == NEVER else _because(makers, stages)
        found.append(Step(stage, state, (*direct, *because), _cells(params, stage)))
    return found


def reasons(
    entries: list[Any], locked: Mapping[str, Any] | None, values: Mapping[str, Any], makers_run: bool = False
) -> tuple[str, ...]:
    """Why a stage runs, from its entries in DVC's status; with `makers_run`, what other stages make is no reason."""
    if not entries:
        return ()
    if locked is None:
        return NEVER
    said: list[str] = []
    for entry in entries:
        if isinstance(entry, str):
            said.append(entry)
            continue
        for path, change in entry.get("changed deps", {}).items():
            if isinstance(change, dict):
                old = locked.get("params", {}).get(path, {})
                said += [f"changed param {leaf}" for name in change for leaf in _leaves(name, old, values)]
            elif not (makers_run and path.startswith("data/")):
                said.append(f"{'missing' if change == 'deleted' else 'changed'} dep {path}")
        words = {"deleted": "missing", "not in cache": "uncached"}
        said += [
            f"{words.get(change, 'changed')} output {path}" for path, change in entry.get("changed outs", {}).items()
        ]
    return tuple(said)


def status() -> Status:
    """DVC's status of the project in the current folder."""
    return json.loads(dvc("status", "--json"))


def restorable() -> set[str]:
    """The stages that DVC would bring back from its cache instead of running them."""
    return set(re.findall(r"Stage '(.+)' is cached - skipping run", dvc("repro", "--dry", "--keep-going", check=False)))


def locked() -> dict[str, Any]:
    """dvc.lock's stages; none before the first run."""
    return _yaml(Path("dvc.lock")).get("stages") or {}


def current(params: Params) -> list[Step]:
    """steps() of the project in the current folder."""
    now = status()
    cached = restorable() if any(map(_outputs_alone, now.values())) else set()
    return steps(params, now, locked(), _yaml(Path("params.yaml")), cached)


def dvc_command(*arguments: str) -> list[str]:
    """DVC beside this Python; it waits while another DVC process holds the project's lock."""
    return [str(Path(sys.executable).with_name("dvc")), "--wait-for-lock", *arguments]


def dvc(*arguments: str, check: bool = True) -> str:
    """What DVC prints; UserError with DVC's own complaint where it fails."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "NO_COLOR": "1"}
    try:
        done = subprocess.run(dvc_command(*arguments), capture_output=True, text=True, env=environment)
    except FileNotFoundError as error:
        raise UserError(f"no DVC at {error.filename}; `pip install -e .` installs it") from None
    if check and done.returncode:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        line = next((line for line in said if line.startswith("ERROR: ")), " ".join(said[:3]) or "no message")
        raise UserError(f"dvc {arguments[0]}: {line.removeprefix('ERROR: ')}")
    return done.stdout


def _named(target: str, stages: Mapping[str, tuple[str, ...]]) -> list[str]:
    found = [stage for stage in stages if target in (stage, noun(stage))]
    if not found and f"evaluate@{target}" in stages:
        found = [f"evaluate@{target}"]
    if not found:
        rows = [key(stage) for stage in stages if noun(stage) == "evaluate"]
        raise UserError(f"no stage or row {target!r}; {alternatives(target, {*stages, *map(noun, stages), *rows})}")
    return found


def _outputs_alone(entries: list[Any]) -> bool:
    return bool(entries) and all(isinstance(entry, dict) and set(entry) == {"changed outs"} for entry in entries)


def _because(makers: list[str], stages: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The nearest of the makers: not those that another of them depends on."""
    behind = {before for maker in makers for before in stages[maker]}
    nearest = [maker for maker in makers if maker not in behind]
    if not nearest:
        return ()
    others = f" and {len(nearest) - 1} more run" if len(nearest) > 1 else " runs"
    return (f"because {nearest[0]}{others}",)


def _cells(params: Params, stage: str) -> tuple[str, ...]:
    if noun(stage) not in ("train", "evaluate") or key(stage) not in params.experiments:
        return ()
    experiment = params.experiments[key(stage)]
    return tuple(f"split{split}-seed{seed}" for split in experiment.splits for seed in experiment.seeds)


def _leaves(name: str, old: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """The params below `name` that differ, as "recipes.quick.lr (0.1, was 0.2)"; the name alone if it is a new one."""
    now: Any = values
    for part in name.split("."):
        now = now.get(part) if isinstance(now, Mapping) else None
    return _differing(name, old[name], now) if name in old else [name]


def _differing(name: str, old: Any, now: Any) -> list[str]:
    if isinstance(old, Mapping) and isinstance(now, Mapping):
        return [
            leaf
            for part in sorted({*old, *now})
            if old.get(part) != now.get(part)
            for leaf in _differing(f"{name}.{part}", old.get(part), now.get(part))
        ]
    new, before = json.dumps(now), json.dumps(old)
    return [f"{name} ({new}, was {before})" if len(new + before) <= LEGIBLE else name]


def _yaml(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML, YAMLError

    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except YAMLError:
        raise UserError(f"{path} is damaged; `git checkout {path}` brings the committed one back") from None
