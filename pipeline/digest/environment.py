"""The causes of differing digits: machine, versions of packages, digests of code."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.digest import code


def provenance() -> dict[str, Any]:
    """Return the causes of differing digits: machine, packages, digests of code."""
    names = sorted({name for packages in code.NUMERIC.values() for name in packages})
    return {
        "cpu": cpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: number for name in names if (number := _version(name))},
        "code": {
            **{f"stages/{name}": code.stage(name) for name in code.ROOTS},
            **{
                f"{package.rpartition('.')[2]}/{path.stem}": code.plugin(kind, path.stem)
                for kind, package in code.PLUGINS.items()
                for path in sorted(code.ROOT.joinpath(*package.split(".")).glob("*.py"))
                if path.stem != "__init__"
            },
        },
    }


def cpu() -> str:
    """Return the CPU's model, or its architecture if the model is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:  # decord has no wheel on some systems
        return None
