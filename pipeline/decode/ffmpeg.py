"""An ffmpeg process that writes a video's frames to a pipe, and the verdict of its log on the video."""

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
_SUSPECT = ("corrupt decoded frame", "corrupt input packet")  # at level warning
# Decoders that mark each picture they had to patch, which ffmpeg reports as _SUSPECT: what else they say is no damage.
_MARKING = {"h264", "mpeg4", "mpeg1video", "mpeg2video", "mpegvideo", "flv", "h263", "h263i", "h263p"}
_MARKING |= {"wmv1", "wmv2", "wmv3", "vc1", "msmpeg4", "msmpeg4v1", "msmpeg4v2"}
# Complaints of any decoder and demuxer that concern no picture.
_NO_PICTURE = re.compile(r"\b(SEI|VUI|ICC|Exif)\b|APP fields|invalid as first byte of an EBML number")
MOST_PIXELS = 1 << 27  # of a picture: 16,384 x 8,192
_DISCARDED, _NO_KEY = re.compile(r", F=0x[0-9A-F]*[4-7C-F]\b"), re.compile(r", F=0x[0-9A-F]*[02468ACE]\b")
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<\?xml|<!--|\{|\[)", re.IGNORECASE)
# Lines of ffmpeg's about its own opening -> a reason that the owner of the file understands.
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
    """An ffmpeg process that writes a video's frames to a pipe; the block ends in Damaged where they aren't whole.

    `warning` is then the complaint, if any, that its decoder made about frames that are whole.
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
            # Else ffmpeg guesses that it is one picture. An orientation that Exif gives is for photographs.
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
        """A line for each of the stream's coded pictures that is to be shown, with its flags."""
        lines = _copied(self._path, "framecrc").decode(errors="replace").splitlines()
        return [line for line in lines if not line.startswith("#") and not _DISCARDED.search(line)]

    def _without_key(self) -> str | None:
        """The reason for a recording that begins within a group of pictures, which need those before; else None."""
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
        """The reason for a stream of which fewer pictures came out than are in it, where its decoder complained."""
        came, there = len(self.timestamps()), len(self._packets())
        return f"{there - came} of its {there} pictures are lost ({self.warning})" if came < there else None

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
        while self._out.read(1 << 20):
            pass

    def timestamps(self) -> list[float]:
        """When each frame is shown, in s; after the block."""
        stamps = re.findall(r"^frame:\d+ +pts:(\S+)", self._times, re.MULTILINE)
        return [int(stamp) / _FLICKS if stamp != "NOPTS" else math.nan for stamp in stamps]


def check_end(name: str, status: int | None, path: Path) -> None:
    """Tell a process that was killed from one that stopped at damage.

    Raises:
        UserError: Something killed it, such as the system where memory is short; nothing is known of the video then.
    """
    if status in (-signal.SIGKILL, -signal.SIGTERM):
        raise UserError(f"{name} was killed while it decoded {path}; free memory, then run the same command again")


def hole(path: Path) -> bool:
    """True if a VP8 or VP9 file has a lost sector that isn't another stream's silence."""
    if not integrity.hollow(path):
        return False
    return integrity.HOLE in _copied(path, "data") or integrity.HOLE not in _copied(path, "data", others=True)


def complaint(log: str, path: Path) -> tuple[str | None, str]:
    """(why the video is damaged, or None; the first complaint about pictures that are whole, or "").

    What is said of sound does not count: ffmpeg looks into it to know the file, and nobody hears it here.
    """
    damage: dict[str, str] = {}
    grumbling: dict[str, str] = {}
    for line in log.splitlines():
        if match := _LOG_LINE.match(line):
            speakers, level, said = match.groups()
            speaker = (re.findall(r"\[([^\]]*) @ 0x[0-9a-f]+\]", speakers) or ["ffmpeg"])[-1]
            if said.startswith(_SUSPECT):
                damage.setdefault(speaker, said)
            elif level in ("error", "fatal", "panic") and ffmpeg_decoders().get(speaker) != "audio":
                harmless = speaker in _MARKING or _NO_PICTURE.search(said)
                (grumbling if harmless else damage).setdefault(speaker, said)
    if opening := next((reason for words, reason in _OPENING.items() if words in log and "ffmpeg" in damage), None):
        reason = _no_video(path) or opening
        return reason, ""
    mapped = re.search(r"^\[info\] +Stream #0:(\d+) -> #0:0 ", log, re.MULTILINE)
    if mapped and re.search(rf"\[info\] +Stream #0:{mapped[1]}\b.*\(attached pic\)", log):
        return "the file holds no video stream but a cover picture", ""
    # ffmpeg's threads talk at once, but each in order: the first speaker's first line is the same every time.
    # A decoder, which has a plain name, says more than those that hear of it.
    telling = grumbling | damage
    order = sorted(telling, key=lambda name: (name == "ffmpeg" or not name.isalnum(), name))
    said = next((f"{name}: {telling[name].replace(f'file:{path}', 'the file').strip()}"[:200] for name in order), "")
    if damage:
        part = "some of its pictures are" if order[0].isalnum() and order[0] != "ffmpeg" else "the file is"
        return f"{part} damaged ({said})", ""
    return None, said


def _no_video(path: Path) -> str | None:
    """The reason for a file of another kind, such as the page that a site sends in place of a video."""
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
    """A file's coded pictures, all or from the first key frame on, or its other streams, in a format of ffmpeg's."""
    source = ffmpeg.input(f"file:{path}", protocol_whitelist="file", format_whitelist=_FORMATS)
    options: dict[str, Any] = {} if from_key else {"copyinkf": None}
    # ffmpeg picks the pictures by itself, but for the format "data".
    chosen = ("a?", "s?", "d?") if others else ("v",) if form == "data" else ()
    streams = [source[kind] for kind in chosen] or [source]
    options |= {} if others else {"an": None, "sn": None, "dn": None}
    sink = ffmpeg.output(*streams, "pipe:", format=form, c="copy", **options)
    command = sink.global_args("-nostdin", "-loglevel", "quiet").compile(cmd=ffmpeg_exe()[0])
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=600).stdout
    except subprocess.TimeoutExpired:
        raise Damaged("decoding took too long") from None
