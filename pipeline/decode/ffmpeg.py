"""An ffmpeg process that writes frames to a pipe, and the damage in its log."""

import io
import math
import os
import re
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

import ffmpeg
import numpy as np

from pipeline.decode import integrity
from pipeline.decode.integrity import Damaged
from pipeline.errors import UserError
from pipeline.executable import ffmpeg_decoders, ffmpeg_exe

# Containers of videos. Without this list ffmpeg takes a text file for a playlist or for ANSI art.
_FORMATS = "mov,avi,matroska,mpeg,mpegts,mpegvideo,flv,asf,ogg,dv,ivf,m4v,h264,hevc,mjpeg,gif,rm,nut,mxf,wtv"
_FLICKS = 705_600_000  # a second; every usual frame rate's interval is a whole number of them
# Times go to a separate pipe: in the log, lines of several threads may mix.
_TIMES = "settb=1/{flicks},metadata=mode=add:key=t:value=0,metadata=mode=print:file='pipe\\:{pipe}'"
# Frames are then numbered at the declared rate, because muxers refuse odd times.
_NUMBERED = "setpts='N/if(gt(FRAME_RATE,0),FRAME_RATE,25)/TB'"
# ffmpeg's VP8 and VP9 decoders accept nearly any bits as a picture; libvpx, as fast, notices damage.
_STRICTER = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_LOG_LINE = re.compile(r"((?:\[[^\]]* @ 0x[0-9a-f]+\] )*)\[(\w+)\] (.*)")
_SUSPECT = ("corrupt decoded frame", "corrupt input packet")  # at level warning
# Decoders that mark each picture they patch, which ffmpeg reports as _SUSPECT; their other complaints are no damage.
_MARKING = {"h264", "mpeg4", "mpeg1video", "mpeg2video", "mpegvideo", "flv", "h263", "h263i", "h263p"}
_MARKING |= {"wmv1", "wmv2", "wmv3", "vc1", "msmpeg4", "msmpeg4v1", "msmpeg4v2"}
# Complaints of any decoder and demuxer that concern no picture.
_NO_PICTURE = re.compile(r"\b(SEI|VUI|ICC|Exif)\b|APP fields|invalid as first byte of an EBML number")
MOST_PIXELS = 1 << 27  # of a picture: 16,384 x 8,192
_DISCARDED, _NO_KEY = re.compile(r", F=0x[0-9A-F]*[4-7C-F]\b"), re.compile(r", F=0x[0-9A-F]*[02468ACE]\b")
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<\?xml|<!--|\{|\[)", re.IGNORECASE)
# Lines of ffmpeg's about opening a file -> a reason that the file's owner understands.
_OPENING = {
    "does not contain any stream": "the file holds no video stream",
    "matches no streams": "the file holds no video stream",
    "moov atom not found": "the file is cut, or no video: an MP4's index (its moov box) is missing",
    "max pixel count": "a picture of the file declares more pixels than can be decoded",
    "Picture size": "a picture of the file declares a size that can't be decoded",
    "no decoder found": "this ffmpeg has no decoder for the file's codec",
    "Error opening input": "the file is no video, or its beginning is damaged",
}


class FFmpegRun:
    """An ffmpeg process that writes a video's frames to a pipe.

    The block ends in Damaged if frames aren't whole. `warning` is then its decoder's complaint, if any, about whole
    frames.
    """

    def __init__(self, path: Path, filters: str, form: str, timeout: float, **options: Any) -> None:
        self._path, self._log, self._times, self._verdict, self.warning = path, "", "", "", ""
        decoder = _STRICTER.get(integrity.codec(path) or "")
        source = ffmpeg.input(
            f"file:{path}",
            threads=1,
            err_detect="+crccheck+bitstream+buffer",
            max_pixels=MOST_PIXELS,
            protocol_whitelist="file",
            format_whitelist=_FORMATS,
            **({"c:v": decoder} if decoder in ffmpeg_decoders() else {}),
            # Without a format ffmpeg guesses a single picture. An orientation in Exif is for photographs.
            **({"format": "mjpeg", "noautorotate": None} if path.suffix == ".mjpeg" else {}),
        )
        reading, writing = os.pipe()
        times = _TIMES.format(flicks=_FLICKS, pipe=writing)
        # Without a map, ffmpeg takes its default of several streams of pictures.
        options |= {name: None for name in ("an", "sn", "dn")}
        sink = source.output(
            "pipe:", vf=f"{times},{_NUMBERED},{filters}", fps_mode="passthrough", format=form, **options
        ).global_args("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info", "-filter_threads", "1")
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
            check_end("ffmpeg", status, self._path)
            reason, self.warning = complaint(self._log, self._path)
            if reason or self.warning:
                reason = self._without_key() or reason or self._missing()
            if reason:
                raise Damaged(reason) from None
            if status:
                raise Damaged(f"ffmpeg left with status {status}") from None

    def _packets(self) -> list[str]:
        """Return a line, with flags, for each coded picture of the stream to be shown."""
        lines = _copied(self._path, "framecrc").decode(errors="replace").splitlines()
        return [line for line in lines if not line.startswith("#") and not _DISCARDED.search(line)]

    def _without_key(self) -> str | None:
        """Return the reason if the video begins within a group of pictures, or None."""
        packets = self._packets()
        early = next((number for number, line in enumerate(packets) if not _NO_KEY.search(line)), 0)
        if not early:
            return None
        reason = f"it begins within a group of pictures: {early} come before its first key frame"
        with tempfile.NamedTemporaryFile(suffix=".nut") as rest:
            rest.write(_copied(self._path, "nut", from_key=True))
            rest.flush()
            if rest.tell():
                with suppress(Damaged), FFmpegRun(Path(rest.name), "null", "null", self._timer.interval) as run:
                    run.skip()
                    reason += ", from which on it is whole; cut it there (`ffmpeg -i IN -c copy OUT`)"
        return reason

    def _missing(self) -> str | None:
        """Return the reason for a stream that lost pictures while decoding, or None."""
        decoded, coded = len(self.timestamps()), len(self._packets())
        return f"{coded - decoded} of its {coded} pictures are lost ({self.warning})" if decoded < coded else None

    @property
    def _out(self) -> io.BufferedReader:
        return cast(io.BufferedReader, self._process.stdout)

    def stop(self, verdict: str) -> None:
        """End the process, with the reason that Damaged gives."""
        self._verdict = verdict
        self._process.kill()

    def _drain(self, name: str, pipe: IO[bytes]) -> None:
        with pipe:
            setattr(self, name, pipe.read().decode(errors="replace"))

    def header(self) -> tuple[int, int, float]:
        """Read (width, height, declared frames a second) from yuv4mpegpipe's header."""
        match = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) F(\d+):(\d+) ", self._out.readline(1000))
        if not match:
            raise Damaged("no frame could be decoded")
        width, height, frames, seconds = map(int, match.groups())
        return width, height, frames / max(seconds, 1)

    def read(self, frame: np.ndarray) -> bool:
        """Fill a flat uint8 array; return false at the end, and once stopped."""
        count = 0 if self._verdict else self._out.readinto(frame.data)
        if 0 < count < len(frame):
            raise Damaged("ffmpeg stopped within a frame")
        return count > 0

    def skip(self) -> None:
        """Read the rest, because a writer to a closed pipe complains."""
        while self._out.read(1 << 20):
            pass

    def timestamps(self) -> list[float]:
        """Return the time of each frame, in s; only after the block."""
        stamps = re.findall(r"^frame:\d+ +pts:(\S+)", self._times, re.MULTILINE)
        return [int(stamp) / _FLICKS if stamp != "NOPTS" else math.nan for stamp in stamps]


def check_end(name: str, status: int | None, path: Path) -> None:
    """Raise UserError if a process was killed, which is no damage of the video."""
    if status in (-signal.SIGKILL, -signal.SIGTERM):
        raise UserError(f"{name} was killed while it decoded {path}; free memory, then run the same command again")


def hole(path: Path) -> bool:
    """Return true if a VP8 or VP9 file has a lost sector in its pictures."""
    if not integrity.hollow(path):
        return False
    return integrity.HOLE in _copied(path, "data") or integrity.HOLE not in _copied(path, "data", others=True)


def complaint(log: str, path: Path) -> tuple[str | None, str]:
    """Return (the damage, or None; the first complaint about whole pictures, or "").

    Complaints about sound do not count, because only pictures are used.
    """
    damage: dict[str, str] = {}
    harmless: dict[str, str] = {}
    for line in log.splitlines():
        if match := _LOG_LINE.match(line):
            sources, level, words = match.groups()
            source = (re.findall(r"\[([^\]]*) @ 0x[0-9a-f]+\]", sources) or ["ffmpeg"])[-1]
            if words.startswith(_SUSPECT):
                damage.setdefault(source, words)
            elif level in ("error", "fatal", "panic") and ffmpeg_decoders().get(source) != "audio":
                (harmless if source in _MARKING or _NO_PICTURE.search(words) else damage).setdefault(source, words)
    if opening := next((reason for words, reason in _OPENING.items() if words in log and "ffmpeg" in damage), None):
        return _no_video(path) or opening, ""
    mapped = re.search(r"^\[info\] +Stream #0:(\d+) -> #0:0 ", log, re.MULTILINE)
    if mapped and re.search(rf"\[info\] +Stream #0:{mapped[1]}\b.*\(attached pic\)", log):
        return "the file holds no video stream but a cover picture", ""
    # ffmpeg's threads log at once, but each in order: the first source's first line is the same every time.
    # A decoder, which has a plain name, knows more than the parts that report its errors.
    lines = harmless | damage
    order = sorted(lines, key=lambda name: (name == "ffmpeg" or not name.isalnum(), name))
    first = next((f"{name}: {lines[name].replace(f'file:{path}', 'the file').strip()}"[:200] for name in order), "")
    if damage:
        part = "some of its pictures are" if order[0].isalnum() and order[0] != "ffmpeg" else "the file is"
        return f"{part} damaged ({first})", ""
    return None, first


def _no_video(path: Path) -> str | None:
    """Return the reason for a file of text, such as a site's error page, or None."""
    with path.open("rb") as file:
        start = file.read(512)
    if _PAGE.match(start):
        return "the file is no video but a web page or a site's error message; download the video again"
    if b"\0" in start or start[4:8] in integrity.MP4_FIRST:
        return None
    try:
        start[:-4].decode()
    except UnicodeDecodeError:
        return None
    return "the file is no video but text"


def _copied(path: Path, form: str, from_key: bool = False, others: bool = False) -> bytes:
    """Copy a file's coded pictures, or its other streams, in a format of ffmpeg's."""
    source = ffmpeg.input(f"file:{path}", protocol_whitelist="file", format_whitelist=_FORMATS)
    options: dict[str, Any] = {} if from_key else {"copyinkf": None}
    # ffmpeg picks the pictures itself, except for the format "data".
    chosen = ("a?", "s?", "d?") if others else ("v",) if form == "data" else ()
    streams = [source[kind] for kind in chosen] or [source]
    options |= {} if others else {"an": None, "sn": None, "dn": None}
    sink = ffmpeg.output(*streams, "pipe:", format=form, c="copy", **options)
    command = sink.global_args("-nostdin", "-loglevel", "quiet").compile(cmd=ffmpeg_exe()[0])
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=600).stdout
    except subprocess.TimeoutExpired:
        raise Damaged("decoding took too long") from None
