"""Stages that `dvc repro` would run, with reasons, from DVC's status and graph."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.config.schema import Params
from pipeline.errors import UserError, unknown

Status = Mapping[str, list[Any]]  # output of `dvc status --json`
State = Literal["runs", "may run", "restored"]
NEVER = ("never run",)
FIRST = ("stages/dvc.yaml:code", "stages/dvc.yaml:inputs")
CODE = "reports/code/"
# Folder of reports/code -> the kind of plug-in.
KINDS = {"attention": "attention", "backbones": "backbone", "datasets": "data set"}
# Params of reports/inputs that are digests of files.
FILES = {"videos": "videos", "lists": "lists", "weights": "file of weights", "outside": "scores from outside"}
SHOWN = 3  # modules that a reason names
LEGIBLE = 60  # characters of a param's old and new value, up to which they are shown


@dataclass(frozen=True)
class Step:
    """A stage that is not up to date.

    "may run": only the stages of its inputs run, and DVC skips it if their bytes stay equal. "restored": DVC's cache
    holds its outputs.
    """

    stage: str
    state: State
    reasons: tuple[str, ...]
    runs: tuple[str, ...]  # of a row: "split1-seed0", ...; else empty


@dataclass(frozen=True)
class Project:
    """A project as DVC sees it, without the stages FIRST."""

    stages: Mapping[str, tuple[str, ...]]  # stage -> its direct dependencies, in executable order
    status: Status
    first: bool = False  # `code` or `inputs` is stale in dvc.lock


def noun(stage: str) -> str:
    return stage.partition("@")[0]


def key(stage: str) -> str:
    """Return the data set or row of a stage; "" for aggregate."""
    return stage.partition("@")[2]


def needed(targets: Iterable[str], stages: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the targets and their dependencies in executable order.

    Without targets, return every stage. A target is a stage, all stages of a name ("train"), or a row, which means its
    evaluation.

    Raises:
        UserError: A target is none of these.
    """
    queue = [stage for target in targets for stage in _named(target, stages)] or list(stages)
    reached: set[str] = set()
    while queue:
        stage = queue.pop()
        if stage not in reached:
            reached.add(stage)
            queue += stages[stage]
    return [stage for stage in stages if stage in reached]


def steps(params: Params, project: Project, lock: Mapping[str, Any], cached: Collection[str] = ()) -> list[Step]:
    """Return the stages that are not up to date, in executable order.

    Args:
        params: The settings.
        project: Graph and status.
        lock: Stages of dvc.lock.
        cached: Stages that DVC would restore.
    """
    stale, listed = set(), []
    for stage, before in project.stages.items():
        makers = [maker for maker in before if maker in stale]
        entries = project.status.get(stage, [])
        direct = reasons(entries, lock.get(stage), makers_run=bool(makers))
        if not direct and not makers:
            continue
        stale.add(stage)
        # DVC's report on its cache is valid for changed outputs only: it looks up a stage's old inputs.
        restored = stage in cached and _outputs_alone(entries)
        state: State = "may run" if not direct else "restored" if restored else "runs"
        because = () if direct == NEVER else _because(makers, project.stages)
        listed.append(Step(stage, state, (*direct, *because), _runs(params, stage)))
    return listed


def reasons(entries: list[Any], locked: Mapping[str, Any] | None, makers_run: bool = False) -> tuple[str, ...]:
    """Return the reasons to run a stage, from its entries in DVC's status.

    With `makers_run`, outputs of other stages are no reason.
    """
    if not entries:
        return ()
    if locked is None:
        return NEVER
    texts: list[str] = []
    for entry in entries:
        if isinstance(entry, str):
            texts.append(entry)
            continue
        for path, change in entry.get("changed deps", {}).items():
            if isinstance(change, dict):
                old, now = locked.get("params", {}).get(path, {}), _yaml(Path(path))
                texts += [text for name in change for text in _changed(name, old, now)]
            elif path.startswith(CODE):
                texts.append(_code(path, locked))
            elif not (makers_run and path.startswith("data/")):
                texts.append(f"{'missing' if change == 'deleted' else 'changed'} dep {path}")
        words = {"deleted": "missing", "not in cache": "uncached"}
        texts += [
            f"{words.get(change, 'changed')} output {path}" for path, change in entry.get("changed outs", {}).items()
        ]
    return tuple(texts)


def project() -> Project:
    """Return DVC's graph and status, after an update of `code` and `inputs`."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo
    from networkx import dfs_postorder_nodes

    from stages import fresh

    fresh.refresh()
    try:
        with Repo(_wait_for_lock=True) as repo:
            graph = repo.index.graph
            ends = [stage for stage in graph if not graph.in_degree(stage)]  # from here a row stays together
            reached = dict.fromkeys(stage for end in ends for stage in dfs_postorder_nodes(graph, end))
            ordered = [stage for stage in reached if stage.addressing not in FIRST]
            stages = {
                stage.addressing: tuple(before.addressing for before in ordered if graph.has_edge(stage, before))
                for stage in ordered
            }
            status = repo.status()
    except (DvcException, LockError) as error:
        raise UserError(f"dvc status: {' '.join(str(error).split())}") from None
    first = any(entry != "always changed" for stage in FIRST for entry in status.get(stage, []))
    return Project(stages, {stage: entries for stage, entries in status.items() if stage in stages}, first)


def restorable() -> set[str]:
    """Return the stages that DVC would restore from its cache instead of running them."""
    return set(re.findall(r"Stage '(.+)' is cached - skipping run", dvc("repro", "--dry", "--keep-going", check=False)))


def locked() -> dict[str, Any]:
    """Return the stages of dvc.lock; none before the first run."""
    stages = _yaml(Path("dvc.lock")).get("stages")
    return stages if isinstance(stages, dict) else {}


def current(params: Params, project: Project) -> list[Step]:
    """Return steps() for dvc.lock and DVC's cache in the current folder."""
    cached = restorable() if any(map(_outputs_alone, project.status.values())) else set()
    return steps(params, project, locked(), cached)


def settings(locked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of a stage's entry in dvc.lock, by name."""
    return {name: value for file in locked.get("params", {}).values() for name, value in file.items()}


def dvc_command(*arguments: str) -> list[str]:
    """Return a command of this environment's DVC that waits for the project's lock."""
    return [str(Path(sys.executable).with_name("dvc")), "--wait-for-lock", *arguments]


def dvc_environment() -> dict[str, str]:
    """Return the variables of a DVC command: `python` in dvc.yaml is this interpreter."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}


def dvc(*arguments: str, check: bool = True) -> str:
    """Return DVC's output; a failure is a UserError with DVC's message."""
    try:
        command, variables = dvc_command(*arguments), {**dvc_environment(), "NO_COLOR": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
    except FileNotFoundError as error:
        raise UserError(f"no DVC at {error.filename}; install it by `pip install -e .`") from None
    if check and done.returncode:
        output = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        line = next((line for line in output if line.startswith("ERROR: ")), output[-1] if output else "no message")
        raise UserError(f"dvc {arguments[0]}: {line.removeprefix('ERROR: ')}")
    return done.stdout


def _named(target: str, stages: Mapping[str, tuple[str, ...]]) -> list[str]:
    matching = [stage for stage in stages if target in (stage, noun(stage))]
    if not matching and f"evaluate@{target}" in stages:
        matching = [f"evaluate@{target}"]
    if not matching:
        rows = [key(stage) for stage in stages if noun(stage) == "evaluate"]
        raise unknown("stage or row", target, {*stages, *map(noun, stages), *rows})
    return matching


def _outputs_alone(entries: list[Any]) -> bool:
    return bool(entries) and all(isinstance(entry, dict) and set(entry) == {"changed outs"} for entry in entries)


def _because(makers: list[str], stages: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return as a reason the nearest makers: those that no other maker depends on."""
    behind = {before for maker in makers for before in stages[maker]}
    nearest = [maker for maker in makers if maker not in behind]
    if not nearest:
        return ()
    others = f" and {len(nearest) - 1} more run" if len(nearest) > 1 else " runs"
    return (f"because {nearest[0]}{others}",)


def _runs(params: Params, stage: str) -> tuple[str, ...]:
    if noun(stage) not in ("train", "evaluate") or key(stage) not in params.experiments:
        return ()
    experiment = params.experiments[key(stage)]
    return tuple(f"split{split}-seed{seed}" for split in experiment.splits for seed in experiment.seeds)


def _changed(name: str, old: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """Return the changed params below `name`, or the kind of changed file.

    E.g. "changed param recipes.quick.lr (0.1, was 0.2)".
    """
    if name in FILES:
        return [f"changed {FILES[name]}"]
    now: Any = values
    for part in name.split("."):
        now = now.get(part) if isinstance(now, Mapping) else None
    return [f"changed param {leaf}" for leaf in (_differing(name, old[name], now) if name in old else [name])]


def _code(path: str, locked: Mapping[str, Any]) -> str:
    """Return the stage or plug-in of changed code.

    Its modules are named if git's HEAD has the file of dvc.lock.
    """
    folder, _, name = path.removeprefix(CODE).partition("/")
    what = f"changed code of {name if folder == 'stages' else f'{KINDS[folder]} {name}'}"
    md5 = next((dep.get("md5") for dep in locked.get("deps", []) if dep["path"] == path), None)
    head = subprocess.run(["git", "show", f"HEAD:./{path}"], capture_output=True)
    if (
        head.returncode
        or hashlib.md5(head.stdout, usedforsecurity=False).hexdigest() != md5
        or not Path(path).is_file()
    ):
        return what
    lines = set(head.stdout.decode().splitlines()) ^ set(Path(path).read_text(encoding="utf-8").splitlines())
    # A line is a digest and a module's path, or a package's pin.
    names = sorted({line.split()[-1].partition("==")[0] for line in lines})
    return f"{what} ({', '.join(names[:SHOWN])}{' ...' if len(names) > SHOWN else ''})"


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
        return dict(YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {})
    except FileNotFoundError:
        return {}
    except (YAMLError, ValueError, TypeError):
        raise UserError(f"{path} is damaged; `git checkout {path}` restores the committed file") from None
