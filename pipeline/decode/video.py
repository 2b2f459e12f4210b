"""Decoding of a video to JPEG frames, or Damaged with a one-line reason."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import simplejpeg

from pipeline.config.schema import Decode
from pipeline.decode import image_folder, integrity
from pipeline.decode.decoders import Decord, FFmpeg, Frames
from pipeline.decode.ffmpeg import hole
from pipeline.decode.integrity import Damaged

TIMEOUT = 900.0  # seconds that one video may take


@dataclass(frozen=True)
class Video(Frames):
    """All frames of a video, and their source."""

    sha256: str  # of the file; of a folder of frames datasets.digest()
    decoder: str
    decoder_version: str


@contextmanager
def opened(settings: Decode, timeout: float = TIMEOUT) -> Iterator[FFmpeg | Decord]:
    """Yield the settings' decoder, for one thread; `timeout` is in seconds a video."""
    kind: type[FFmpeg] | type[Decord] = FFmpeg if settings.decoder == "ffmpeg" else Decord
    decoder = kind(settings.short_side, settings.quality, timeout)
    try:
        yield decoder
    finally:
        decoder.close()


def decode(
    path: Path,
    decoder: FFmpeg | Decord,
    sha256: str | None = None,
    first: int | None = None,
    last: int | None = None,
    fps: float = 0.0,
) -> Video:
    """Decode a video, scaled to the settings' short side.

    A display rotation is honored. A sample aspect ratio is not: pixels are taken as square, as by the field's tools.

    Args:
        path: a video file, or a folder of frames.
        decoder: the decoder.
        sha256: that of the download, if known.
        first: of a folder, as in image_folder.decode().
        last: the same.
        fps: the same.

    Raises:
        Damaged: The video is not whole; trained on a part of it, a result would be about another data set.
    """
    try:
        if path.is_dir():
            return _decode_folder(path, decoder, sha256, first, last, fps)
        if not path.is_file() and path.exists():  # reading one may never end
            raise Damaged("it is no file but a pipe, a socket or a device")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 is not None and sha256 != digest:
            raise Damaged("changed since download (sha256 differs)")
        integrity.check(path)
        if hole(path):
            raise Damaged("the file is damaged: a hole of zeros, such as a lost sector leaves, is among its pictures")
    except FileNotFoundError:
        raise Damaged("the file is not there") from None
    except OSError as error:
        raise Damaged(f"the file can't be read: {error.strerror}") from None
    frames = decoder.frames(path)
    if not frames.jpegs:
        raise Damaged("no frame could be decoded")
    return Video(**vars(frames), sha256=digest, decoder=decoder.name, decoder_version=decoder.version)


def _decode_folder(
    path: Path, decoder: FFmpeg | Decord, sha256: str | None, first: int | None, last: int | None, fps: float
) -> Video:
    ffmpeg = FFmpeg(decoder.short_side, decoder.quality, decoder.timeout)  # with either decoder of video files
    frames, digest, kept = image_folder.decode(path, first, last, fps, ffmpeg)
    if sha256 is not None and sha256 != digest:
        raise Damaged("changed since download (sha256 differs)")
    # simplejpeg reads each frame, to find damage.
    name, version = ("none", simplejpeg.__version__) if kept else (ffmpeg.name, ffmpeg.version)
    return Video(**vars(frames), sha256=digest, decoder=name, decoder_version=version)
