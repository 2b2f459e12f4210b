"""Two decoders, ffmpeg and decord: video files to JPEG frames."""

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from pipeline.decode.ffmpeg import FFmpegRun, check_end
from pipeline.decode.integrity import Damaged
from pipeline.errors import UserError
from pipeline.executable import ffmpeg_exe

MISSING = "decord is not installed (its wheels are for Linux x86-64); set datasets.<name>.decode.decoder to ffmpeg"
_JPEG_SIDE = 65_500  # pixels that libjpeg takes at most
_SPARSE = 8  # pixels between those that two frames are compared at
_OTHER = 24  # levels of luma: a larger mean difference is no conversion of colors
_LATE = 0.25  # s between first frames: decoders count B-frames of an AVI differently
_STILL = 0.25  # levels of luma: a smaller mean difference may vanish in another conversion of colors
# Scale to the short side, the longer one rounded to even; a JPEG holds full-range BT.601 4:2:0.
_TO_JPEG = (
    "scale=w='if(lt(iw,ih),{0},-2)':h='if(lt(iw,ih),-2,{0})':flags=bilinear:out_color_matrix=bt601:out_range=pc,"
    "format=yuvj420p"
)


@dataclass(frozen=True)
class Frames:
    """The frames of a video, from a decoder."""

    width: int  # as stored, in pixels
    height: int
    fps: float  # as declared, or as ffmpeg estimates it
    timestamps: list[float]  # s, one a frame; nan where the file has none
    jpegs: list[bytes]  # 4:2:0, one a frame; a folder of frames may have others
    warning: str = field(default="", kw_only=True)  # the decoder's complaint, if any, about whole frames


class FFmpeg:
    """An ffmpeg process for each video, whose YUV planes are encoded as JPEG."""

    name = "ffmpeg"

    def __init__(self, short_side: int, quality: int, timeout: float) -> None:
        self.short_side, self.quality, self.timeout = short_side, quality, timeout
        self.filters = _TO_JPEG.format(short_side)
        self.version = ffmpeg_exe()[1]

    def frames(self, path: Path) -> Frames:
        """Decode every frame from first to last; raises Damaged."""
        jpegs: list[bytes] = []
        with FFmpegRun(path, self.filters, "yuv4mpegpipe", self.timeout) as run:
            width, height, fps = run.header()
            if max(width, height) > _JPEG_SIDE:
                run.stop(f"no JPEG holds a frame of {width}x{height}")
            for planes in _pictures(run, width, height):
                jpegs.append(simplejpeg.encode_jpeg_yuv_planes(*planes, self.quality))
        timestamps = run.timestamps()
        if len(timestamps) != len(jpegs):
            raise Damaged(f"{len(jpegs)} frames of {len(timestamps)} came through")
        return Frames(width, height, fps, timestamps, jpegs, warning=run.warning)

    def close(self) -> None:
        pass


class Decord:
    """decord in a child process, which may crash or is ended by a time-out.

    It decodes whole videos in order, because its random access is wrong on some AVIs. ffmpeg decodes the video too,
    because decord fills gaps with neighbors. Frames that differ in number, in first or last time, or by repetitions are
    damage.
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
        """Decode every frame from first to last; raises Damaged."""
        with FFmpegRun(path, self.filters, "yuv4mpegpipe", self.timeout) as run:
            width, height, declared = run.header()  # decord needs both sides, or it reads ahead at the full size
            expected = [y[::_SPARSE, ::_SPARSE].astype(np.int16) for y, _, _ in _pictures(run, width, height)]
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
            reason, fps, timestamps, jpegs, lumas, repeated = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(10)
            status = self._process.exitcode
            self.close()
            check_end("decord", status, path)
            raise Damaged("decord crashed") from None
        if reason:
            raise Damaged(reason)
        if difference := difference_of(expected, lumas, run.timestamps(), declared, timestamps, repeated):
            raise Damaged(f"decord and ffmpeg read two videos in it: {difference}; decoder: ffmpeg takes ffmpeg's")
        return Frames(width, height, fps, timestamps, jpegs, warning=run.warning)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _pictures(run: FFmpegRun, width: int, height: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield each frame's (Y, U, V) planes, which the next overwrites."""
    rows, columns = (height + 1) // 2, (width + 1) // 2
    ends = np.cumsum([len("FRAME\n"), height * width, rows * columns, rows * columns])
    frame = np.empty(ends[-1], np.uint8)
    y = frame[ends[0] : ends[1]].reshape(height, width)
    u = frame[ends[1] : ends[2]].reshape(rows, columns)
    v = frame[ends[2] :].reshape(rows, columns)
    while run.read(frame):
        yield y, u, v


def difference_of(
    expected: Sequence[np.ndarray],
    lumas: Sequence[np.ndarray],
    times: Sequence[float],
    fps: float,
    decords: Sequence[float],
    repeated: Sequence[int],
) -> str:
    """Return the difference between decord's frames and ffmpeg's in words, or "".

    Args:
        expected: a sparse luma plane of each of ffmpeg's frames.
        lumas: the same of decord's.
        times: ffmpeg's timestamps in s.
        fps: the declared frame rate.
        decords: decord's timestamps in s.
        repeated: numbers of decord's frames that equal the frame before.
    """
    if len(decords) != len(expected):
        return f"{len(decords)} frames and {len(expected)}"
    wrong = [number for number in repeated if np.abs(expected[number] - expected[number - 1]).mean() > _STILL]
    if wrong:
        return f"decord repeats frame {wrong[0] - 1}, and {len(wrong) - 1} more"
    far = [number for number, (a, b) in enumerate(zip(expected, lumas, strict=True)) if np.abs(a - b).mean() > _OTHER]
    if far:
        return f"frame {far[0]} and {len(far) - 1} more differ"
    span, decords_span = times[-1] - times[0], decords[-1] - decords[0]
    if abs(decords[0] - times[0]) > _LATE or abs(decords_span - span) > 1.5 / max(fps, 1):
        return f"from {decords[0]:.2f} to {decords[-1]:.2f} s and from {times[0]:.2f} to {times[-1]:.2f} s"
    return ""


def _serve_decord(pipe: Connection, quality: int) -> None:
    """Run the child process: decode each (path, width, height) that the pipe sends."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    with suppress(EOFError):
        while True:
            path, width, height = pipe.recv()
            jpegs: list[bytes] = []
            lumas: list[np.ndarray] = []
            repeated: list[int] = []
            before = None
            try:
                reader = decord.VideoReader(path, width=width, height=height, num_threads=1)
                for _ in range(len(reader)):
                    rows = reader.next().asnumpy().reshape(height, -1)  # where padded, shown as a fourth channel
                    pixels = np.ascontiguousarray(rows[:, : 3 * width]).reshape(height, width, 3)
                    if before is not None and np.array_equal(pixels, before):
                        repeated.append(len(jpegs))
                    before = pixels
                    lumas.append((pixels[::_SPARSE, ::_SPARSE] @ np.array([0.299, 0.587, 0.114])).astype(np.int16))
                    jpegs.append(simplejpeg.encode_jpeg(pixels, quality, "RGB", "420"))
                fps = float(reader.get_avg_fps())
                times = reader.get_frame_timestamp(range(len(jpegs)))[:, 0]
                del reader  # a live one holds hundreds of decoded frames
                if not (np.diff(times) > 0).all() or np.abs(times).max() > 1e6:  # of an AVI that has none: -3e17
                    times = np.arange(len(jpegs)) / fps
            except Exception:  # RuntimeError while opening, DECORDError later; both print paths
                pipe.send((f"decord: stops after {len(jpegs)} frames", 0.0, [], [], [], []))
                continue
            pipe.send(("", fps, times.tolist(), jpegs, lumas, repeated))
