"""Stage 2, for one data set: decode videos to shards of JPEG frames."""

from pathlib import Path

from cluster.fanout import fan_out
from cluster.session import session
from pipeline.config import load, places
from pipeline.decode import shards
from pipeline.download import sources
from pipeline.errors import UserError
from stages import DATA, chosen, run


def decode(name: str) -> None:
    params = load.load()
    dataset = chosen(params, name)
    folder = (DATA / "frames" / name).absolute()
    videos = places.located(dataset, Path.cwd(), DATA / "videos" / name).absolute()
    if not videos.is_dir():
        raise UserError(f"{name}: {videos} is missing; `dvc repro -f download@{name}` restores the videos")
    listed = sources.read(DATA / "raw" / name / "manifest.csv")
    videos_of = [shards.Source(e.video, e.path, e.sha256, e.first, e.last, e.fps) for e in listed]
    reports = (DATA / "work" / ".decode" / name).absolute()
    tasks = shards.plan(folder, videos, videos_of, dataset.decode, reports)
    with session(params.cluster, data=True):
        items = [(task,) for task in tasks]
        work = fan_out(shards.decode_shard, items, f"decode {name}, shards", params.cluster.max_failures)
        seconds = sum(report.seconds for _, report in work)
    done = shards.finish(folder, tasks)
    decoded, failed = sum(report.videos for report in done), sum(report.failed for report in done)
    frames, size = sum(report.frames for report in done), sum(report.bytes for report in done)
    speed = f", {frames / seconds:.0f} frames/s a core" if seconds else ", all decoded before"
    print(f"{name}: {decoded} of {decoded + failed} videos, {frames} frames, {size / 2**20:.0f} MiB{speed}")
    if failed:
        print(f"{name}: {failed} could not be decoded, {folder.relative_to(Path.cwd())}/failed.csv has the reasons")
    if failed > dataset.decode.max_failed * (decoded + failed):
        raise UserError(
            f"{name}: {failed} of {decoded + failed} videos could not be decoded, more than "
            f"datasets.{name}.decode.max_failed allows ({dataset.decode.max_failed:.0%}); "
            f"see {folder.relative_to(Path.cwd())}/failed.csv"
        )


if __name__ == "__main__":
    run(decode)
