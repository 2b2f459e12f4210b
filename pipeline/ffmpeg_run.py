"""An ffmpeg process that writes a video's frames to a pipe, and what its log says against the video."""

import io
import math
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import IO, Any, cast

import ffmpeg
import numpy as np

from pipeline import containers
from pipeline.containers import Damaged
from pipeline.executable import ffmpeg_decoders, ffmpeg_exe

# What a benchmark's videos come in. A text file that ffmpeg would take for a playlist or for ANSI art is none of them.
_FORMATS = "mov,avi,matroska,mpeg,mpegts,mpegvideo,flv,asf,ogg,dv,ivf,m4v,h264,hevc,mjpeg,gif,rm,nut,mxf,wtv"
_FLICKS = 705_600_000  # a second; every usual frame rate's interval is a whole number of them
# Times go to a pipe of their own: among the log's lines, a line may fall into the midst of another's.
_TIMES = "settb=1/{flicks},metadata=mode=add:key=t:value=0,metadata=mode=print:file='pipe\\:{pipe}'"
# Frames are then numbered at the declared rate, so that a muxer finds no fault with odd times.
_NUMBERED = "setpts='N/if(gt(FRAME_RATE,0),FRAME_RATE,25)/TB'"
# ffmpeg's own VP8 and VP9 decoders take nearly any bits for a picture; libvpx, as fast, notices when they don't add up.
_STRICTER = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_LOG_LINE = re.compile(r"((?:\[[^\]]* @ 0x[0-9a-f]+\] )*)\[(\w+)\] (.*)")
_SUSPECT = ("corrupt decoded frame", "corrupt input packet")  # said as a warning


class FFmpegRun:
    """An ffmpeg process that writes a video's frames to a pipe; the block ends in Damaged where it complained."""

    def __init__(self, path: Path, filters: str, form: str, timeout: float, **options: Any) -> None:
        self._path, self._log, self._times, self._verdict = path, "", "", ""
        decoder = _STRICTER.get(containers.codec(path) or "")
        source = ffmpeg.input(
            f"file:{path}",
            threads=1,
            err_detect="+crccheck+bitstream+buffer+explode",
            protocol_whitelist="file",
            format_whitelist=_FORMATS,
            **({"c:v": decoder} if decoder in ffmpeg_decoders() else {}),
            # Else ffmpeg guesses that it is one picture. An orientation that Exif gives is for photographs.
            **({"format": "mjpeg", "noautorotate": None} if path.suffix == ".mjpeg" else {}),
        )
        reading, writing = os.pipe()
        times = _TIMES.format(flicks=_FLICKS, pipe=writing)
        sink = source.output(
            "pipe:", map="0:V:0", vf=f"{times},{_NUMBERED},{filters}", fps_mode="passthrough", format=form, **options
        ).global_args("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+warning", "-filter_threads", "1")
        with os.fdopen(writing, "wb"):
            self._process = subprocess.Popen(
                sink.compile(cmd=ffmpeg_exe()[0]),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(writing,),
            )
        self._timer = threading.Timer(timeout, self.stop, ["decoding took too long"])
        self._drains = [
            threading.Thread(target=self._drain, args=("_log", self._process.stderr)),
            threading.Thread(target=self._drain, args=("_times", os.fdopen(reading, "rb"))),
        ]

    def __enter__(self) -> "FFmpegRun":
        for thread in (self._timer, *self._drains):
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Damaged):
            self._process.kill()
        self._out.close()
        for thread in self._drains:
            thread.join()
        status = self._process.wait()
        self._timer.cancel()
        if kind is None or issubclass(kind, Damaged):
            if self._verdict:
                raise Damaged(self._verdict) from None
            if reason := complaint(self._log, self._path):
                raise Damaged(reason) from None
            if status:
                raise Damaged(f"ffmpeg left with status {status}") from None

    @property
    def _out(self) -> io.BufferedReader:
        return cast(io.BufferedReader, self._process.stdout)

    def stop(self, verdict: str) -> None:
        """Ends the process; `verdict` is then what is wrong."""
        self._verdict = verdict
        self._process.kill()

    def _drain(self, name: str, pipe: IO[bytes]) -> None:
        with pipe:
            setattr(self, name, pipe.read().decode(errors="replace"))

    def header(self) -> tuple[int, int, float]:
        """(width, height, declared frames a second) from the header of yuv4mpegpipe."""
        match = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) F(\d+):(\d+) ", self._out.readline(1000))
        if not match:
            raise Damaged("no frame could be decoded")
        width, height, frames, seconds = map(int, match.groups())
        return width, height, frames / max(seconds, 1)

    def read(self, frame: np.ndarray) -> bool:
        """Fills a flat uint8 array; False at the end, and once stopped."""
        count = 0 if self._verdict else self._out.readinto(frame.data)
        if 0 < count < len(frame):
            raise Damaged("ffmpeg stopped within a frame")
        return count > 0

    def skip(self) -> None:
        """Takes what is left, for a writer to a closed pipe would complain."""
        self._out.read()

    def timestamps(self) -> list[float]:
        """When each frame is shown, in s; after the block."""
        stamps = re.findall(r"^frame:\d+ +pts:(\S+)", self._times, re.MULTILINE)
        return [int(stamp) / _FLICKS if stamp != "NOPTS" else math.nan for stamp in stamps]


def complaint(log: str, path: Path) -> str | None:
    """The most telling line of ffmpeg's log that says the video is damaged; None where it has none.

    What is said of sound does not count: ffmpeg looks into it to know the file, and nobody hears it here.
    """
    first: dict[str, str] = {}
    for line in log.splitlines():
        if match := _LOG_LINE.match(line):
            speakers, level, said = match.groups()
            speaker = (re.findall(r"\[([^\]]*) @ 0x[0-9a-f]+\]", speakers) or ["ffmpeg"])[-1]
            if level in ("error", "fatal", "panic") or said.startswith(_SUSPECT):
                first.setdefault(speaker, said)
    telling = [speaker for speaker in first if ffmpeg_decoders().get(speaker) != "audio"]
    if not telling:
        return None
    # ffmpeg's threads talk at once, but each in order: the first speaker's first line is the same every time.
    # A decoder, which has a plain name, says more than those that hear of it.
    speaker = min(telling, key=lambda name: (name == "ffmpeg" or not name.isalnum(), name))
    said = first[speaker].replace(f"file:{path}", "the file")
    return f"{speaker}: {said.strip()}"[:200]
