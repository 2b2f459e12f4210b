"""Which ffmpeg to run."""

import re
import shutil
import subprocess
from contextlib import suppress
from functools import cache

import imageio_ffmpeg

from pipeline.errors import UserError


@cache
def ffmpeg_exe() -> tuple[str, str]:
    """(path, version) of the ffmpeg on PATH if it is 5.1 or later, else of the one that imageio-ffmpeg brings."""
    for exe in filter(None, (shutil.which("ffmpeg"), _bundled())):
        said = subprocess.run([exe, "-version"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
        version = said.split()[2] if said.startswith("ffmpeg version") else ""
        number = re.match(r"n?(\d+)\.(\d+)", version)  # a build from git has no number, and is taken as new
        if version and (not number or (int(number[1]), int(number[2])) >= (5, 1)):
            return exe, version
    raise UserError("no ffmpeg 5.1 or later: install one on PATH, or the package imageio-ffmpeg")


def _bundled() -> str | None:
    with suppress(RuntimeError):
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    return None
