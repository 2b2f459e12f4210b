"""Digests of the code behind a stage's result, or of a plug-in's part in it.

A digest covers the static import closure of numeric roots, each module reduced to its meaning (syntax.py). It covers
the pinned versions of the numeric packages that the closure imports too. LEFT_OUT and OTHER_PACKAGES list the
exceptions and the reasons that they can't change a result. cluster/ and stages/ are above every root, so no closure
reaches them.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.digest.closure import ROOT, Module, closure

# stage -> the modules that compute its result
ROOTS = {
    "download": ("pipeline.download.sources", "pipeline.subset"),
    "decode": ("pipeline.decode.shards",),
    "splits": ("pipeline.splits",),
    "train": ("pipeline.train.loop",),
    "evaluate": ("pipeline.evaluate.inference", "pipeline.measure.outcomes"),
    "trajectories": ("pipeline.trajectories.encoding",),
    "aggregate": ("pipeline.aggregate.suite",),
}
PLUGINS = {"attention": "models.attention", "backbone": "models.backbones", "dataset": "pipeline.datasets"}

# module or package -> the reason it can't change a result
LEFT_OUT = {
    "pipeline.storage.atomic": "writes the bytes it is given",
    "pipeline.digest": "names results and checks their bytes",
    "pipeline.download.urls": "fetches files whose sha256 is given",
    "pipeline.errors": "the class of messages to the user",
    "pipeline.train.throughput": "measures time",
    "pipeline.tracking.run_record": "what MLflow shows of a run",
    "pipeline.digest.state": "keeps work in progress, bound to its key and its sha256",
    "pipeline.storage.remote": "moves the bytes it is given",
    "pipeline.tracking.mlflow_mirror": "mirrors runs into MLflow",
}
# package, as imported -> the distributions whose versions can change a number
NUMERIC = {
    "cv2": ("opencv-contrib-python-headless",),
    "decord": ("decord",),
    "ffmpeg": ("ffmpeg-python",),
    "imageio_ffmpeg": ("imageio-ffmpeg",),
    "jinja2": ("Jinja2",),
    "matplotlib": ("matplotlib",),
    "numpy": ("numpy",),
    "polars": ("polars",),
    "pyarrow": ("pyarrow",),
    "scipy": ("scipy",),
    "simplejpeg": ("simplejpeg",),
    "sklearn": ("scikit-learn",),
    "torch": ("torch",),
}
# other packages that closures import -> the reason their version can't change a result
OTHER_PACKAGES = {
    "filelock": "keeps processes apart",
    "mlflow": "shows runs",
    "pydantic": "checks settings",
    "pydantic_core": "checks settings",
    "requests": "fetches files whose sha256 is given",
    "rich": "shows progress",
    "ruamel": "reads YAML",
}


def stage(name: str) -> str:
    """Return the digest of a stage's code without its plug-ins, as 64 hex digits."""
    return hashlib.sha256(_listing(ROOTS[name]).encode()).hexdigest()


def plugin(kind: str, name: str) -> str:
    """Return the digest of a plug-in's code; kinds are those of PLUGINS."""
    return hashlib.sha256(_listing([f"{PLUGINS[kind]}.{name}"]).encode()).hexdigest()


def files(project: Path = ROOT) -> dict[str, str]:
    """Return path below reports/code/ -> text, with a line per module and pin."""
    read: dict[str, Module | None] = {}
    texts = {f"stages/{name}": _listing(roots, project, read) for name, roots in ROOTS.items()}
    for package in PLUGINS.values():
        folder = project.joinpath(*package.split("."))
        for path in sorted(folder.glob("*.py")):
            if path.stem != "__init__":
                texts[f"{folder.name}/{path.stem}"] = _listing([f"{package}.{path.stem}"], project, read)
    return texts


def modules(roots: Iterable[str], project: Path = ROOT) -> dict[str, Module]:
    """Return the modules that a digest of `roots` covers, by name."""
    return closure(roots, LEFT_OUT, project)


def packages(covered: Iterable[Module]) -> set[str]:
    """Return the third-party packages that modules import, as imported."""
    import sys

    inside = {*sys.stdlib_module_names, "models", "pipeline"}
    return {name.partition(".")[0] for module in covered for name in module.imports} - inside


def _listing(roots: Iterable[str], project: Path = ROOT, read: dict[str, Module | None] | None = None) -> str:
    covered = closure(roots, LEFT_OUT, project, read)
    used = packages(covered.values())
    pins = _pins((project / "constraints.txt").read_text(encoding="utf-8"))
    names = sorted(distribution for package in used & NUMERIC.keys() for distribution in NUMERIC[package])
    lines = [f"{module.meaning[:32]}  {module.path}" for module in covered.values()]
    return "\n".join([*lines, *(f"{name}=={pins[_plain(name)]}" for name in names)]) + "\n"


def _pins(text: str) -> dict[str, str]:
    return {_plain(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
