"""Changed cells between two revisions, and the causes of the changes."""

import json
import subprocess
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from pipeline.errors import UserError, reading, unknown

WORKSPACE = "workspace"  # the files as they are now
METRICS, CODE = "reports/metrics/", "reports/code/"
LEGIBLE = 60  # characters of a param's value that are still shown


@dataclass(frozen=True)
class Side:
    """A revision's results and their inputs."""

    metrics: Mapping[str, Mapping[str, float]]  # row -> its metrics, in percent
    stages: Mapping[str, Mapping[str, Any]]  # dvc.lock's
    code: Mapping[str, str] = field(default_factory=dict)  # path below reports/code/ -> a line for each module


@dataclass(frozen=True)
class Move:
    """A cell on both sides; None if a side lacks it."""

    row: str
    metric: str
    before: float | None  # percent
    after: float | None
    beyond: bool  # whether one side's value is outside the other's interval, or only one side has the cell
    causes: tuple[str, ...]


def moves(first: Side, second: Side) -> list[Move]:
    """Return all cells with an interval, and the causes of their changes."""
    cells = []
    for row in dict.fromkeys((*second.metrics, *first.metrics)):
        before, after = first.metrics.get(row, {}), second.metrics.get(row, {})
        causes = tuple(changes(row, first, second))
        for metric in (name for name in dict.fromkeys((*after, *before)) if f"{name}_low" in {**before, **after}):
            beyond = _outside(before.get(metric), after, metric) or _outside(after.get(metric), before, metric)
            cells.append(Move(row, metric, before.get(metric), after.get(metric), beyond, causes))
    return cells


def changes(row: str, first: Side, second: Side) -> list[str]:
    """Return the changes of params, seeds, data and code behind a row's numbers.

    Without a dvc.lock on either side there is none.
    """
    params: list[str] = []
    data: set[str] = set()
    code: set[str] = set()
    for stage in _chain(row, first.stages, second.stages):
        old, new = first.stages.get(stage, {}), second.stages.get(stage, {})
        if not (old and new):
            if old or new:
                params.append(f"{stage} was not run on the {'second' if old else 'first'} side")
            continue
        was, now = (_flat(dict(ChainMap(*side.get("params", {}).values()))) for side in (old, new))  # of all files
        for key in dict.fromkeys((*was, *now)):
            if was.get(key) != now.get(key):
                kind = "seeds" if key.endswith(".seeds") else "param"
                params.append(f"{kind} {key}: {_shown(was.get(key))} -> {_shown(now.get(key))}")
        hashes = [{dep["path"]: dep.get("md5") for dep in side.get("deps", [])} for side in (old, new)]
        for path in hashes[0].keys() | hashes[1].keys():
            if hashes[0].get(path) != hashes[1].get(path):
                (code if path.startswith(CODE) else data).add(path)
    # The outs of a row's own stages follow from the rest, so they are no cause.
    listed = [f"data {path}" for path in sorted(data) if not path.startswith("data/runs/")]
    listed += [_code(path.removeprefix(CODE), first.code, second.code) for path in sorted(code)]
    return list(dict.fromkeys(params)) + listed


def _code(path: str, first: Mapping[str, str], second: Mapping[str, str]) -> str:
    """Return a changed digest file in words, with its modules and pins if known."""
    kind, _, name = path.partition("/")
    lines = set(first.get(path, "").splitlines()) ^ set(second.get(path, "").splitlines())
    modules = sorted({line.split()[-1] for line in lines}) if path in first and path in second else []
    return f"code of {kind.removesuffix('s')} {name}" + (f": {', '.join(modules)}" if modules else "")


def read(revision: str, root: Path, cache: Path | None = None) -> Side:
    """Read a side.

    Metrics are those of the suite in the side's dvc.lock; a revision's come from DVC's cache.

    Args:
        revision: A git revision, a DVC experiment, or "workspace".
        root: The project's folder.
        cache: DVC's cache; the project's by default.

    Raises:
        UserError: The revision is unknown, or the cache lacks its metrics.
    """
    if revision == WORKSPACE:
        stages = _stages(_text(root / "dvc.lock") if (root / "dvc.lock").exists() else "")
        folder = _metrics(stages).get("path", METRICS)
        texts = {path.stem: _text(path) for path in sorted((root / folder).glob("*.json"))}
        code = {
            path.relative_to(root / CODE).as_posix(): _text(path) for path in (root / CODE).rglob("*") if path.is_file()
        }
    else:
        commit = _commit(revision, root)
        tracked = _git(root, "ls-tree", "-r", "--name-only", commit, "dvc.lock", CODE).splitlines()
        stages = _stages(_git(root, "show", f"{commit}:dvc.lock") if "dvc.lock" in tracked else "")
        texts = _cached(revision, _metrics(stages), cache or root / ".dvc" / "cache")
        code = {
            name.removeprefix(CODE): _git(root, "show", f"{commit}:{name}") for name in tracked if name.startswith(CODE)
        }
    metrics = {}
    for row, text in texts.items():
        with reading(Path(f"{row}.json of {revision}"), "`actionbench repro` makes the metrics again"):
            metrics[row] = dict(json.loads(text))
    return Side(metrics, stages, code)


def _text(path: Path) -> str:
    with reading(path, "`actionbench repro` makes it again"):
        return path.read_text(encoding="utf-8")


def _stages(lock: str) -> dict[str, Any]:
    with reading(Path("dvc.lock"), "`actionbench repro` moves it away, `git checkout dvc.lock` restores git's"):
        try:
            return dict((YAML(typ="safe").load(lock) or {}).get("stages", {})) if lock else {}
        except YAMLError as error:
            raise ValueError from error


def _metrics(stages: Mapping[str, Any]) -> dict[str, str]:
    """Return dvc.lock's entry of the suite's folder of metrics; empty if absent."""
    outs = stages.get("aggregate", {}).get("outs", [])
    return next((out for out in outs if out["path"].startswith(METRICS)), {})


def _cached(revision: str, out: Mapping[str, str], cache: Path) -> dict[str, str]:
    """Return the texts of a folder's files in DVC's cache, by name without suffix."""
    if not out:
        return {}

    def read(md5: str) -> str:
        return (cache / "files" / "md5" / md5[:2] / md5[2:]).read_text(encoding="utf-8")

    try:
        with reading(cache, f"its {out['path']} of {revision} differs from DVC's record; `actionbench repro` there"):
            return {Path(entry["relpath"]).stem: read(entry["md5"]) for entry in json.loads(read(out["md5"]))}
    except FileNotFoundError:
        raise UserError(
            f"DVC's cache has no {out['path']} of {revision} (`dvc fetch` gets it from a remote, if there is one); "
            f"for the maintainers' results: `actionbench diff reference`"
        ) from None


def _commit(revision: str, root: Path) -> str:
    """Return the commit of a git revision or a DVC experiment."""
    resolve = ("rev-parse", "--verify", "-q", f"{revision}^{{commit}}")
    if not revision.startswith("-") and (commit := _git(root, *resolve, ok=True)):  # a dash would begin an option
        return commit.strip()
    experiments = _git(root, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    named = {name.rpartition("/")[2]: name for name in experiments}
    if revision in named:
        return named[revision]
    known = _git(root, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags").split()
    raise unknown("revision or experiment", revision, [*named, *known, WORKSPACE])


def _git(root: Path, *arguments: str, ok: bool = False) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    if done.returncode and not ok:
        raise UserError(f"git {arguments[0]}: {done.stderr.strip().splitlines()[0] if done.stderr else 'failed'}")
    return "" if done.returncode else done.stdout


def _chain(row: str, *sides: Mapping[str, Any]) -> list[str]:
    """Return the stages behind a row's numbers."""
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
    """Return whether a value is outside the other's interval, or on one side alone."""
    if value is None or metric not in other:
        return True
    return not other[f"{metric}_low"] <= value <= other[f"{metric}_high"]
