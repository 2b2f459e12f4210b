"""constraints.txt holds on every platform, and uv gets pip's indexes."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.config.schema import Decode
from pipeline.decode.decoders import MISSING
from pipeline.decode.video import opened
from pipeline.errors import UserError

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLATFORMS = {"x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin"}
PYTHONS = ["3.11", "3.12", "3.13"]
WITHOUT_WHEEL = "antlr4-python3-runtime"  # pure Python, published as source only
# Prints what uv would be run with.
FAKE_UV = '#!/bin/sh\necho "$UV_DEFAULT_INDEX|$UV_EXTRA_INDEX_URL|$UV_FIND_LINKS|$*"\n'
FAKE_PYTHON = "#!/bin/sh\ncat <<'END'\n{}\nEND\n"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Return canonical name -> version of a file with one pin on each line."""
    lines = [line.partition(";")[0].split("==") for line in text.splitlines() if line and not line.startswith("#")]
    return {canonical(name.partition("[")[0]): version.strip() for name, version in lines}


@pytest.mark.registry
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", sorted(PLATFORMS))
def test_the_pins_resolve_to_wheels_and_are_complete(platform: str, python: str) -> None:
    if not shutil.which("uv"):
        pytest.skip("uv is not on PATH")
    resolve = [ROOT / ".ci" / "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--all-extras"]
    resolve += ["--python-platform", platform, "--python-version", python]
    resolve += ["--only-binary", ":all:", "--no-binary", WITHOUT_WHEEL, "-c", "constraints.txt", "pyproject.toml"]
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"}  # torch's oldest macOS
    environment["UV_FIND_LINKS"] = str(ROOT / "tests")  # no wheels of one machine's: they hide the other platforms'
    done = subprocess.run(resolve, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    resolved = pins(done.stdout)
    assert resolved.items() <= pins((ROOT / "constraints.txt").read_text()).items()
    assert ("decord" in resolved) == platform.startswith("x86_64")


def test_every_dependency_is_pinned() -> None:
    pinned = pins((ROOT / "constraints.txt").read_text())
    extras = PROJECT["optional-dependencies"]
    for requirement in [*PROJECT["dependencies"], *(line for lines in extras.values() for line in lines)]:
        name = canonical(re.split(r"[\[<>=;, ]", requirement)[0])
        assert name in pinned or name == "actionbench", requirement


def test_uv_is_given_what_pip_is_configured_with(tmp_path: Path) -> None:
    settings = [":env:.find-links='/a /b'", "global.index-url='https://one/simple'", "global.find-links='/b'"]
    settings += ["global.extra-index-url='\\nhttps://two/simple\\nhttps://three/simple'", "global.timeout='60'"]
    for name, text in {"uv": FAKE_UV, "python": FAKE_PYTHON.format("\n".join(settings))}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(tmp_path / "python")}
    done = subprocess.run([ROOT / ".ci" / "uv", "pip", "list"], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "https://one/simple|https://two/simple https://three/simple|/a,/b|pip list", done
    environment["UV_DEFAULT_INDEX"] = "https://mine/simple"
    done = subprocess.run([ROOT / ".ci" / "uv", "pip", "list"], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("https://mine/simple|")


def test_a_missing_decord_is_one_line_that_names_the_other_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    settings = Decode(short_side=32, quality=90, decoder="decord", videos_per_shard=1, max_failed=0.0)
    with pytest.raises(UserError) as raised, opened(settings):
        pass
    assert str(raised.value) == MISSING and "\n" not in MISSING and "decode.decoder to ffmpeg" in MISSING


def test_the_python_here_is_one_of_those_that_are_checked() -> None:
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]},<3.{int(PYTHONS[-1].split('.')[1]) + 1}"
