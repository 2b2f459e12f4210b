"""The ffmpeg executable."""

import re
import shutil
import subprocess
from contextlib import suppress
from functools import cache

import imageio_ffmpeg

from pipeline.errors import UserError


@cache
def ffmpeg_exe() -> tuple[str, str]:
    """Return (path, version) of the ffmpeg on PATH if new enough, or the package's.

    Raises:
        UserError: Neither is 5.1 or later.
    """
    for exe in filter(None, (shutil.which("ffmpeg"), _bundled())):
        output = ""
        with suppress(OSError, subprocess.TimeoutExpired, UnicodeDecodeError):  # absent, or built for another machine
            output = subprocess.run(
                [exe, "-version"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
            ).stdout
        version = output.split()[2] if output.startswith("ffmpeg version") else ""
        number = re.match(r"n?(\d+)\.(\d+)", version)  # a build from git has no number, and counts as new
        if version and (not number or (int(number[1]), int(number[2])) >= (5, 1)):
            return exe, version
    raise UserError("no ffmpeg 5.1 or later: install one on PATH, or the package imageio-ffmpeg")


@cache
def ffmpeg_decoders() -> dict[str, str]:
    """Return that ffmpeg's decoders: name -> video, audio or subtitle."""
    done = subprocess.run([ffmpeg_exe()[0], "-hide_banner", "-decoders"], capture_output=True, text=True, check=True)
    kinds = {"V": "video", "A": "audio", "S": "subtitle"}
    return {name: kinds[kind] for kind, name in re.findall(r"^ ([VAS])[F.][S.][X.][B.][D.] (\S+)", done.stdout, re.M)}


def _bundled() -> str | None:
    with suppress(RuntimeError):
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    return None
