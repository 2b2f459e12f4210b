"""Small videos of every kind that a decoder meets, made by ffmpeg."""

import subprocess
from pathlib import Path

from pipeline.config.schema import Decode
from pipeline.executable import ffmpeg_exe

H264 = ["-c:v", "libx264", "-g", "12", "-pix_fmt", "yuv420p"]
XVID = ["-c:v", "libxvid", "-bf", "2", "-g", "10", "-q:v", "4"]
VP9 = ["-c:v", "libvpx-vp9", "-b:v", "300k", "-deadline", "realtime", "-cpu-used", "8"]
SOUND = ["-f", "lavfi", "-i", "sine=duration=1", "-map", "0:v", "-map", "1:a", "-c:a", "aac"]
# name: (file, size of the source, seconds, arguments of ffmpeg, width and height at a short side of 96, frames)
KINDS = {
    "h264": ("a.mp4", "160x120", 1, H264, (128, 96), 25),
    "h264 in Matroska": ("a.mkv", "160x120", 1, H264, (128, 96), 25),
    "xvid with B-frames": ("a.avi", "160x120", 1, [*XVID, "-bsf:v", "mpeg4_unpack_bframes"], (128, 96), 23),
    "xvid with packed B-frames": ("packed.avi", "160x120", 1, XVID, (128, 96), 23),
    "vp9": ("a.webm", "160x120", 1, VP9, (128, 96), 25),
    "vp9 of 10 bits": ("ten.webm", "160x120", 1, [*VP9, "-pix_fmt", "yuv420p10le"], (128, 96), 25),
    "vp8 with hidden frames": ("8.webm", "160x120", 1, ["-c:v", "libvpx", "-auto-alt-ref", "1"], (128, 96), 25),
    "mpeg2 in a program stream": ("a.mpg", "160x120", 1, ["-c:v", "mpeg2video", "-q:v", "4"], (128, 96), 25),
    "odd size": ("odd.avi", "41x31", 1, ["-c:v", "mjpeg", "-q:v", "2"], (128, 96), 25),
    "odd size, upright": ("odd2.avi", "31x41", 1, ["-c:v", "mjpeg", "-q:v", "2"], (96, 128), 25),
    "one frame": ("one.mp4", "160x120", 0.04, H264, (128, 96), 1),
    "sound": ("sound.mp4", "160x120", 1, [*SOUND, *H264], (128, 96), 25),
    "in fragments": ("f.mp4", "160x120", 1, [*H264, "-movflags", "frag_keyframe+empty_moov"], (128, 96), 25),
    "wide pixels": ("sar.mp4", "160x120", 1, [*H264, "-aspect", "16:9"], (128, 96), 25),
    "BT.709": (
        "709.mp4",
        "160x120",
        1,
        [*H264, "-vf", "scale=out_color_matrix=bt709", "-colorspace", "1"],
        (128, 96),
        25,
    ),
}


def make(path: Path, size: str, seconds: float, options: list[str]) -> Path:
    source = f"testsrc2=size={size}:rate=25:duration={seconds},hue=s=0.4,gblur=sigma=1"  # as soft as photographs
    command = [ffmpeg_exe()[0], "-v", "error", "-y", "-f", "lavfi", "-i", source, *options, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def settings(decoder: str = "ffmpeg", short_side: int = 96) -> Decode:
    return Decode(short_side, 95, decoder, 8, 0.1)  # type: ignore[arg-type]
