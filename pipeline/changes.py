"""What moved between two revisions, cell by cell, and the param, data, code or seed change behind it."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.errors import UserError, alternatives

WORKSPACE = "workspace"  # the files as they are now
METRICS = "reports/metrics/"
LEGIBLE = 60  # characters of a param's value that are still shown


@dataclass(frozen=True)
class Side:
    """What a revision has of results, and of what they were made from."""

    metrics: Mapping[str, Mapping[str, float]]  # row -> its metrics, in percent
    stages: Mapping[str, Mapping[str, Any]]  # dvc.lock's


@dataclass(frozen=True)
class Move:
    """A cell on both sides; None where a side hasn't it."""

    row: str
    metric: str
    before: float | None  # percent
    after: float | None
    beyond: bool  # one side's value lies outside of the other's interval, or only one side has the cell
    causes: tuple[str, ...]


def moves(first: Side, second: Side) -> list[Move]:
    """Every cell that has an interval, in the second side's order, with what changed on its way."""
    found = []
    for row in dict.fromkeys((*second.metrics, *first.metrics)):
        before, after = first.metrics.get(row, {}), second.metrics.get(row, {})
        causes = tuple(changes(row, first.stages, second.stages))
        for metric in (name for name in dict.fromkeys((*after, *before)) if f"{name}_low" in {**before, **after}):
            beyond = _outside(before.get(metric), after, metric) or _outside(after.get(metric), before, metric)
            found.append(Move(row, metric, before.get(metric), after.get(metric), beyond, causes))
    return found


def changes(row: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What differs between two dvc.locks among all that the row's numbers follow from: params, seeds, data, code."""
    params: list[str] = []
    data: set[str] = set()
    code: set[str] = set()
    for stage in _chain(row, first, second):
        old, new = first.get(stage, {}), second.get(stage, {})
        if not old and not new:
            continue
        for which, has in (("first", old), ("second", new)):
            if not has:
                params.append(f"{stage} was not run on the {which} side")
        if not (old and new):
            continue
        was, now = (
            _flat(old.get("params", {}).get("params.yaml", {})),
            _flat(new.get("params", {}).get("params.yaml", {})),
        )
        for key in dict.fromkeys((*was, *now)):
            if was.get(key) != now.get(key):
                kind = "seeds" if key.endswith(".seeds") else "param"
                params.append(f"{kind} {key}: {_shown(was.get(key))} -> {_shown(now.get(key))}")
        hashes = [{dep["path"]: dep.get("md5") for dep in side.get("deps", [])} for side in (old, new)]
        for path in hashes[0].keys() | hashes[1].keys():
            if hashes[0].get(path) != hashes[1].get(path):
                (code if path.endswith(".py") else data).add(path)
    # What a row's own stages leave follows from the rest, so it is no cause.
    outside = sorted(path for path in data if not path.startswith(("data/runs/", "data/logs/")))
    listed = [f"data {path}" for path in outside] + [f"code {path}" for path in sorted(code)]
    return list(dict.fromkeys(params)) + listed


def read(revision: str, root: Path) -> Side:
    """A side by the name of a git revision, of a DVC experiment, or "workspace"; `root` is the project's folder.

    Raises UserError for a name that is none of these.
    """
    if revision == WORKSPACE:
        paths = sorted((root / METRICS).glob("*.json"))
        texts = {path.stem: path.read_text(encoding="utf-8") for path in paths}
        lock = (root / "dvc.lock").read_text(encoding="utf-8") if (root / "dvc.lock").exists() else ""
    else:
        commit = _commit(revision, root)
        names = _git(root, "ls-tree", "--name-only", commit, METRICS).splitlines()
        texts = {Path(name).stem: _git(root, "show", f"{commit}:{name}") for name in names}
        tracked = _git(root, "ls-tree", "--name-only", commit, "dvc.lock").strip()
        lock = _git(root, "show", f"{commit}:dvc.lock") if tracked else ""
    stages = (YAML(typ="safe").load(lock) or {}).get("stages", {}) if lock else {}
    return Side({row: json.loads(text) for row, text in texts.items()}, stages)


def _commit(revision: str, root: Path) -> str:
    """The commit of a git revision or a DVC experiment."""
    # What begins with a dash would be an option.
    found = (
        "" if revision.startswith("-") else _git(root, "rev-parse", "--verify", "-q", f"{revision}^{{commit}}", ok=True)
    )
    if found:
        return found.strip()
    experiments = _git(root, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    named = {name.rpartition("/")[2]: name for name in experiments}
    if revision in named:
        return named[revision]
    known = _git(root, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags").split()
    raise UserError(f"no revision or experiment {revision!r}; {alternatives(revision, [*named, *known, WORKSPACE])}")


def _git(root: Path, *arguments: str, ok: bool = False) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    if done.returncode and not ok:
        raise UserError(f"git {arguments[0]}: {done.stderr.strip().splitlines()[0] if done.stderr else 'failed'}")
    return "" if done.returncode else done.stdout


def _chain(row: str, *sides: Mapping[str, Any]) -> list[str]:
    """The stages that a row's numbers come through; its data set is what its training read."""
    sets = dict.fromkeys(
        dep["path"].rpartition("/")[2]
        for side in sides
        for dep in side.get(f"train@{row}", {}).get("deps", [])
        if dep["path"].startswith("data/frames/")
    )
    upstream = [f"{noun}@{dataset}" for dataset in sets for noun in ("download", "decode", "splits")]
    return [*upstream, f"train@{row}", f"evaluate@{row}"]


def _flat(value: Any, where: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        nested = (_flat(inner, f"{where}.{key}" if where else str(key)) for key, inner in value.items())
        return {key: leaf for flat in nested for key, leaf in flat.items()}
    return {where: value}


def _shown(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value)
    return text if len(text) <= LEGIBLE else f"{text[: LEGIBLE - 4]} ..."


def _outside(value: float | None, other: Mapping[str, float], metric: str) -> bool:
    """Whether a value lies outside of the other side's interval; also where only one side has the cell."""
    if value is None or metric not in other:
        return True
    return not other[f"{metric}_low"] <= value <= other[f"{metric}_high"]
