"""`actionbench datasets`: each set is ready, partial or missing, with a remedy."""

import shutil
from pathlib import Path

import pytest

from pipeline import datasets, splits
from pipeline.config import load, places
from pipeline.config.schema import Dataset, Decode, Params
from pipeline.download import sources
from stages.commands import catalogue
from tests.support.videos.stand_ins import STAND_INS, written

ROOT = Path(__file__).parents[2]
DECODE = Decode(short_side=48, quality=90, decoder="ffmpeg", videos_per_shard=8, max_failed=0.0)
BARE = {"suite": "quick", "recipes": {}, "protocols": {}, "experiments": {}, "tables": {}}
DATA = Path("data")


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Return params without data sets, in an empty project."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    return load.parse({**BARE, "datasets": {}})


def listed(params: Params) -> dict[str, catalogue.Data]:
    return {data.name: data for data in catalogue.datasets(params, DATA)}


def test_ten_missing_sets_are_listed(params):
    clips = listed(params)
    assert clips.keys() >= {*STAND_INS, "jhmdb", "shapes", "folder"}
    for name in STAND_INS:
        plugin, data = datasets.loaded(name), clips[name]
        assert data.state == "missing" and data.official == plugin.COUNTS and data.found == {} and data.bytes is None
        assert data.todo.startswith(f"fetch {plugin.FETCH}; ") and plugin.LAYOUT in data.todo
        assert f"data/videos/{'cifar-100-binary' if name == 'cifar100' else name}" in data.todo
        assert data.licence and data.homepage.startswith("http") and "\n" not in data.todo
    classes = {"ucf101": 101, "hmdb51": 51, "kinetics400": 400, "sthv1": 174, "sthv2": 174, "jester": 27}
    classes |= {"egogesture": 83, "diving48": 48, "charades": 157, "cifar100": 100}
    assert {name: clips[name].classes for name in STAND_INS} == classes
    assert {name: clips[name].unlabelled for name in ("sthv1", "sthv2", "jester", "ucf101")} == {
        **{"sthv1": 10_960, "sthv2": 27_157, "jester": 14_743, "ucf101": 0}
    }
    assert clips["cifar100"].download == 168_513_733 and clips["shapes"].state == "not drawn yet"


def test_a_set_that_no_entry_uses_and_one_whose_decoding_a_tier_decides(params):
    Path("conf/dataset/jester.yaml").unlink()
    entry = Path("conf/dataset/ucf101.yaml")
    lines = [line for line in entry.read_text().splitlines() if not line.startswith("decode:")]
    entry.write_text("\n".join([*lines, "decode: ${tier.decode}"]))
    clips = listed(params)
    assert clips["jester"].state == "no entry" and clips["jester"].classes == 27
    assert clips["ucf101"].state == "missing"


@pytest.mark.parametrize(
    ("name", "state", "clips"),
    [
        ("jester", "ready: 4 videos", {1: {"train": 2, "test": 1}}),
        ("charades", "ready: 3 videos", {1: {"train": 2, "test": 1}}),
        ("kinetics400", "partial: 3 of 800 videos", {1: {"train": 2, "test": 1}}),
        ("egogesture", "ready: 4 videos", {1: {"train": 2, "val": 1, "test": 1}}),
    ],
)
def test_after_the_stages(params, tmp_path, monkeypatch, name, state, clips):
    stand_in = STAND_INS[name](tmp_path)
    for constant, value in stand_in.patches.items():
        monkeypatch.setattr(datasets.loaded(name), constant, value)
    dataset = Dataset(
        name, str(stand_in.source), str(stand_in.lists) if stand_in.lists else None, stand_in.options, DECODE
    )
    params.datasets[name] = dataset
    if Path(stand_in.source).is_dir():
        assert listed(params)[name].state == state.replace("ready: 4", "not indexed yet: 4 of 4")
    folder = sources.fetch(name, dataset, Path(), DATA / "videos" / name)
    entries = sources.manifest(name, dataset, folder)
    sources.write(DATA / "raw" / name / "manifest.csv", entries)
    assert listed(params)[name].state == state  # against the published counts, before there are lists
    built = splits.build(name, dataset, entries, places.lists(dataset, Path(), DATA / "videos" / name))
    splits.write(built, DATA / "splits" / name)
    data = listed(params)[name]
    assert (data.state, data.found, data.classes) == (state, clips, stand_in.classes)
    assert data.bytes == sum(entry.bytes for entry in entries)
    assert ("absent.csv" in data.todo) == state.startswith("partial")
    (DATA / "frames" / name).mkdir(parents=True)
    (DATA / "frames" / name / "failed.csv").write_text("video,path,reason\na,a,cut\nb,b,cut\n")
    assert listed(params)[name].state == f"{state}, 2 of them can't be decoded"
    (DATA / "raw" / name / "manifest.csv").write_text("video,path\na,a.mp4\n")
    assert listed(params)[name].state == "unexpected layout" and "is damaged" in listed(params)[name].todo


def test_another_layout_is_named_and_hides_no_other_set(params):
    written(DATA / "videos/egogesture", {"Subject03/Scene1/Color/rgb1/000001.jpg": b"x"})
    written(DATA / "videos/jester", {"one/7/00001.jpg": b"x", "two/7/00001.jpg": b"x"})
    written(DATA / "videos/hmdb51", {"clap.avi": b"x"})
    written(DATA / "videos/ucf101", {"UCF-101/Archery/v_Archery_g08_c01.avi": b"x"})
    clips = listed(params)
    assert clips["egogesture"].state == "unexpected layout" and "listall_but_None.txt is" in clips["egogesture"].todo
    assert clips["jester"].state == "unexpected layout" and "keep one of them" in clips["jester"].todo
    assert clips["hmdb51"].state == "missing" and clips["hmdb51"].todo.startswith("fetch hmdb51_org.rar")
    assert clips["ucf101"].state == "partial: 1 of 13320 videos"
    assert clips["ucf101"].todo.startswith("complete data/videos/ucf101: the content of UCF101.rar")
