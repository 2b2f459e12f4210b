"""The two decoders, ffmpeg and decord: each turns a video file into JPEG frames in a process that may die alone."""

import multiprocessing
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from pipeline.containers import Damaged
from pipeline.errors import UserError
from pipeline.executable import ffmpeg_exe
from pipeline.ffmpeg_run import FFmpegRun

MISSING = "decord is not installed (its wheels are for Linux x86-64); set datasets.<name>.decode.decoder to ffmpeg"
_JPEG_SIDE = 65_500  # pixels that libjpeg takes at most
# To the short side, the longer one rounded to even; full range BT.601 4:2:0 is what a JPEG holds.
_TO_JPEG = (
    "scale=w='if(lt(iw,ih),{0},-2)':h='if(lt(iw,ih),-2,{0})':flags=bilinear:out_color_matrix=bt601:out_range=pc,"
    "format=yuvj420p"
)


@dataclass(frozen=True)
class Frames:
    """What a decoder returns."""

    width: int  # as stored, in pixels
    height: int
    fps: float  # as declared, or as ffmpeg reckons it
    timestamps: list[float]  # s, one a frame; nan where the file has none
    jpegs: list[bytes]  # 4:2:0, one a frame; of a folder of frames perhaps its own, which may be others


class FFmpeg:
    """One ffmpeg process a video; planes of YUV go from its pipe to the JPEG encoder, with no detour over RGB."""

    name = "ffmpeg"

    def __init__(self, short_side: int, quality: int, timeout: float) -> None:
        self.short_side, self.quality, self.timeout = short_side, quality, timeout
        self.filters = _TO_JPEG.format(short_side)
        self.version = ffmpeg_exe()[1]

    def frames(self, path: Path) -> Frames:
        """Every frame from first to last; raises Damaged."""
        jpegs = []
        with FFmpegRun(path, self.filters, "yuv4mpegpipe", self.timeout) as run:
            width, height, fps = run.header()
            if max(width, height) > _JPEG_SIDE:
                run.stop(f"no JPEG holds a frame of {width}x{height}")
            rows, columns = (height + 1) // 2, (width + 1) // 2
            ends = np.cumsum([len("FRAME\n"), height * width, rows * columns, rows * columns])
            frame = np.empty(ends[-1], np.uint8)
            y = frame[ends[0] : ends[1]].reshape(height, width)
            u = frame[ends[1] : ends[2]].reshape(rows, columns)
            v = frame[ends[2] :].reshape(rows, columns)
            while run.read(frame):
                jpegs.append(simplejpeg.encode_jpeg_yuv_planes(y, u, v, self.quality))
        timestamps = run.timestamps()
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
        try:
            import decord
        except ImportError:
            raise UserError(MISSING) from None

        self.short_side, self.quality, self.timeout = short_side, quality, timeout
        self.filters = _TO_JPEG.format(short_side)
        self.version = decord.__version__
        self._process: Any = None

    def frames(self, path: Path) -> Frames:
        """Every frame from first to last; raises Damaged."""
        with FFmpegRun(path, self.filters, "yuv4mpegpipe", self.timeout, vframes=1) as run:
            width, height, _ = run.header()  # decord must be told both, or it reads ahead at the full size
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
                    rows = reader.next().asnumpy().reshape(height, -1)  # where padded, shown as a fourth channel
                    pixels = np.ascontiguousarray(rows[:, : 3 * width]).reshape(height, width, 3)
                    jpegs.append(simplejpeg.encode_jpeg(pixels, quality, "RGB", "420"))
                fps = float(reader.get_avg_fps())
                times = reader.get_frame_timestamp(range(len(jpegs)))[:, 0]
                del reader  # a live one holds hundreds of decoded frames
                if not (np.diff(times) > 0).all() or np.abs(times).max() > 1e6:  # of an AVI that has none: -3e17
                    times = np.arange(len(jpegs)) / fps
            except Exception:  # RuntimeError at the opening, decord's own DECORDError later, both with paths in them
                pipe.send((f"decord: stops after {len(jpegs)} frames", 0.0, [], []))
                continue
            pipe.send(("", fps, times.tolist(), jpegs))
