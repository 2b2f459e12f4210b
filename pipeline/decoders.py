"""The two decoders, ffmpeg and decord: each turns a video file into JPEG frames in a process that may die alone."""

import multiprocessing
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
import simplejpeg

from pipeline.executable import ffmpeg_exe

# What a benchmark's videos come in. A text file that ffmpeg would take for a playlist or for ANSI art is none of them.
_FORMATS = "mov,avi,matroska,mpeg,mpegts,mpegvideo,flv,asf,ogg,dv,ivf,m4v,h264,hevc,mjpeg,gif,rm,nut,mxf,wtv"
# To the short side, the longer one rounded to even; full range BT.601 4:2:0 is what a JPEG holds.
_TO_JPEG = (
    "scale=w='if(lt(iw,ih),{0},-2)':h='if(lt(iw,ih),-2,{0})':flags=bilinear:out_color_matrix=bt601:out_range=pc,"
    "format=yuvj420p"
)
COUNTED = "settb=1/25,setpts=N"  # frames are numbered, so that a muxer finds no fault with odd times
_LOG_LINE = re.compile(r"((?:\[[^\]]* @ 0x[0-9a-f]+\] )*)\[(\w+)\] (.*)")
_SUSPECT = ("corrupt decoded frame", "corrupt input packet", "concealing ")  # said below the level of an error


class Damaged(Exception):
    """A video that cannot be decoded whole; the message is the reason: one line, without paths, the same every time."""


@dataclass(frozen=True)
class Frames:
    """What a decoder returns."""

    width: int  # as stored, in pixels
    height: int
    fps: float  # declared by the container, else the mean; 0.0 where neither is known
    timestamps: list[float]  # s, one a frame
    jpegs: list[bytes]  # 4:2:0, one a frame


class FFmpegRun:
    """An ffmpeg process that writes a video's frames to a pipe; the block ends in Damaged where it complained."""

    def __init__(self, path: Path, filters: str, form: str, timeout: float, **options: Any) -> None:
        self._path, self._log, self._late = path, "", False
        source = ffmpeg.input(
            f"file:{path}",
            threads=1,
            err_detect="+crccheck+bitstream+buffer+explode",
            protocol_whitelist="file",
            format_whitelist=_FORMATS,
        )
        sink = source.output(
            "pipe:", map="0:V:0", vf=filters, fps_mode="passthrough", enc_time_base="1/25", format=form, **options
        ).global_args("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info", "-filter_threads", "1")
        self._process = sink.run_async(cmd=ffmpeg_exe()[0], pipe_stdout=True, pipe_stderr=True)
        self._timer = threading.Timer(timeout, self._stop)
        self._drain = threading.Thread(target=self._read_log)

    def __enter__(self) -> "FFmpegRun":
        self._timer.start()
        self._drain.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Damaged):
            self._process.kill()
        self._process.stdout.close()
        self._drain.join()
        status = self._process.wait()
        self._timer.cancel()
        if kind is None or issubclass(kind, Damaged):
            if self._late:
                raise Damaged("decoding took too long") from None
            if reason := complaint(self._log, self._path):
                raise Damaged(reason) from None
            if status:
                raise Damaged(f"ffmpeg left with status {status}") from None

    def _stop(self) -> None:
        self._late = True
        self._process.kill()

    def _read_log(self) -> None:
        self._log = self._process.stderr.read().decode(errors="replace")

    def size(self) -> tuple[int, int]:
        """(width, height) from the header of yuv4mpegpipe."""
        header = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) ", self._process.stdout.readline(1000))
        if not header:
            raise Damaged("no frame could be decoded")
        return int(header[1]), int(header[2])

    def read(self, frame: np.ndarray) -> bool:
        """Fills a flat uint8 array; False at the end."""
        count = self._process.stdout.readinto(frame)
        if 0 < count < len(frame):
            raise Damaged("ffmpeg stopped within a frame")
        return count > 0

    def skip(self) -> None:
        """Takes what is left, for a writer to a closed pipe would complain."""
        self._process.stdout.read()

    def times(self) -> tuple[float, list[float]]:
        """(frames a second, one time a frame in s) as the filter showinfo logged them; after the block."""
        configured = re.findall(r"config in time_base: (\d+/\d+), frame_rate: (\d+/\d+)", self._log)
        base, rate = configured[-1]
        stamps = re.findall(r"^\[Parsed_showinfo[^\]]*\] \[info\] n: *\d+ pts: *(-?\d+|NOPTS)", self._log, re.MULTILINE)
        fps = 0.0 if rate.endswith("/0") else float(Fraction(rate))
        times = [float(int(stamp) * Fraction(base)) for stamp in stamps if stamp != "NOPTS"]
        if len(times) < len(stamps):
            times = [index / fps if fps else 0.0 for index in range(len(stamps))]
        if not fps and len(times) > 1 and times[-1] > times[0]:
            fps = (len(times) - 1) / (times[-1] - times[0])
        return fps, times


def complaint(log: str, path: Path) -> str | None:
    """The most telling line of ffmpeg's log that says the video is damaged; None where it has none.

    What is said of sound does not count: ffmpeg looks into it to describe the file, and nobody hears it here.
    """
    sound = {name for pair in re.findall(r"Audio: (\w+)(?: \((\w+)\))?", log) for name in pair}
    first: dict[str, str] = {}
    for line in log.splitlines():
        if match := _LOG_LINE.match(line):
            speakers, level, said = match.groups()
            speaker = (re.findall(r"\[([^\]]*) @ 0x[0-9a-f]+\]", speakers) or ["ffmpeg"])[-1]
            if (level in ("error", "fatal", "panic") or said.startswith(_SUSPECT)) and speaker not in sound:
                first.setdefault(speaker, said)
    if not first:
        return None
    # ffmpeg's threads talk at once, but each in order: the first speaker's first line is the same every time.
    # A decoder, which has a plain name, says more than those that hear of it.
    speaker = min(first, key=lambda name: (name == "ffmpeg" or not name.isalnum(), name))
    said = first[speaker].replace(f"file:{path}", "the file").replace(str(path), "the file")
    return f"{speaker}: {said.strip()}"[:200]


class FFmpeg:
    """One ffmpeg process a video; planes of YUV go from its pipe to the JPEG encoder, with no detour over RGB."""

    name = "ffmpeg"

    def __init__(self, short_side: int, quality: int, timeout: float) -> None:
        self.quality, self.timeout = quality, timeout
        self.filters = f"showinfo=checksum=0,{COUNTED},{_TO_JPEG.format(short_side)}"
        self.version = ffmpeg_exe()[1]

    def frames(self, path: Path) -> Frames:
        """Every frame from first to last; raises Damaged."""
        jpegs = []
        with FFmpegRun(path, self.filters, "yuv4mpegpipe", self.timeout) as run:
            width, height = run.size()
            rows, columns = (height + 1) // 2, (width + 1) // 2
            ends = np.cumsum([len("FRAME\n"), height * width, rows * columns, rows * columns])
            frame = np.empty(ends[-1], np.uint8)
            y = frame[ends[0] : ends[1]].reshape(height, width)
            u = frame[ends[1] : ends[2]].reshape(rows, columns)
            v = frame[ends[2] :].reshape(rows, columns)
            while run.read(frame):
                jpegs.append(simplejpeg.encode_jpeg_yuv_planes(y, u, v, self.quality))
        fps, timestamps = run.times()
        if len(timestamps) != len(jpegs):
            raise Damaged(f"{len(jpegs)} frames of {len(timestamps)} came through")
        return Frames(width, height, fps, timestamps, jpegs)

    def close(self) -> None:
        pass


class Decord:
    """decord in a process of its own, which a crash of its native code may take along and a time-out ends.

    It is asked for a whole video in order, since its random access is wrong on some AVIs.
    """

    name = "decord"

    def __init__(self, short_side: int, quality: int, timeout: float) -> None:
        import decord

        self.quality, self.timeout = quality, timeout
        self.filters = _TO_JPEG.format(short_side)
        self.version = decord.__version__
        self._process: Any = None

    def frames(self, path: Path) -> Frames:
        """Every frame from first to last; raises Damaged."""
        with FFmpegRun(path, self.filters, "yuv4mpegpipe", self.timeout, vframes=1) as run:
            width, height = run.size()  # decord must be told both, or it reads ahead at the full size
            run.skip()
        if self._process is None:
            context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve_decord, args=(theirs, self.quality), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._pipe.send((str(path), width, height))
            if not self._pipe.poll(self.timeout):
                self.close()
                raise Damaged("decoding took too long")
            reason, fps, timestamps, jpegs = self._pipe.recv()
        except (EOFError, OSError):
            self.close()
            raise Damaged("decord crashed") from None
        if reason:
            raise Damaged(reason)
        return Frames(width, height, fps, timestamps, jpegs)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _serve_decord(pipe: Connection, quality: int) -> None:
    """The child: (path, width, height) in, (reason, fps, timestamps, jpegs) out, until the other end closes."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    with suppress(EOFError):
        while True:
            path, width, height = pipe.recv()
            jpegs: list[bytes] = []
            try:
                reader = decord.VideoReader(path, width=width, height=height, num_threads=1)
                for _ in range(len(reader)):
                    jpegs.append(simplejpeg.encode_jpeg(reader.next().asnumpy(), quality, "RGB", "420"))
                fps = float(reader.get_avg_fps())
                stamps = reader.get_frame_timestamp(range(len(jpegs)))[:, 0]
                del reader  # a live one holds hundreds of decoded frames
            except Exception:  # RuntimeError at the opening, decord's own DECORDError later, both with paths in them
                pipe.send((f"decord: stops after {len(jpegs)} frames", 0.0, [], []))
                continue
            known = (np.diff(stamps) > 0).all() and np.abs(stamps).max() < 1e6  # where an AVI has no times: -3e17
            pipe.send(("", fps, stamps.tolist() if known else [index / fps for index in range(len(jpegs))], jpegs))
