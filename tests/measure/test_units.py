"""Test units: sources read from videos' names, and intervals that count sources."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from pipeline.datasets import ucf101
from pipeline.measure import accuracy, results, scores
from pipeline.measure.units import units
from tests.support import invented
from tests.support.real_data import TEST_DATA

LISTS = TEST_DATA / "data" / "annotations"


@pytest.mark.parametrize(
    ("file", "videos", "expected"),
    [
        ("ucf101", ["Archery/v_Archery_g01_c01", "Archery/v_Archery_g01_c02", "Archery/v_Archery_g02_c01"], [0, 0, 1]),
        ("ucf101", ["Archery/v_Archery_g01_c01", "YoYo/v_YoYo_g01_c01", "YoYo/v_YoYo_g01_c02"], [0, 1, 1]),
        (
            "hmdb51",  # one film in two classes; two films; np10 has two digits
            [
                "sit/Rocky_sit_u_nm_np1_fr_goo_3",
                "stand/Rocky_stand_f_cm_np10_ba_med_0",
                "stand/April_09_stand_h_nm_np1_le_bad_12",
            ],
            [1, 1, 0],
        ),
        ("kinetics400", ["-abc_def_01_000010_000020", "-abc_def_01_000030_000040", "x_000010_000020"], [0, 0, 1]),
        ("diving48", ["_8Vy3dlHg2w_00000", "_8Vy3dlHg2w_00013", "other_00001"], [0, 0, 1]),
        ("egogesture", ["Subject01/Scene1/Color/rgb1/1-30", "Subject01/Scene2/Color/rgb2/5-9", "Subject02/S/C/r/1-2"],
         [0, 0, 1]),
    ],
)  # fmt: skip
def test_videos_of_one_source_are_one_unit(file: str, videos: list[str], expected: list[int]) -> None:
    numbers = units(file, pl.Series(videos), several_splits=False)
    assert numbers is not None and numbers.tolist() == expected


def test_without_sources_each_video_is_a_unit_and_one_of_several_splits_is_one() -> None:
    videos = pl.Series(["a", "b", "a"])
    assert units("shapes", videos[:2], several_splits=False) is None
    numbers = units("shapes", videos, several_splits=True)
    assert numbers is not None and numbers.tolist() == [0, 1, 0]
    assert units("hmdb51", pl.Series(["sit/odd name", "sit/other name"]), several_splits=False) is None


@pytest.mark.skipif(not (LISTS / "ucf101").is_dir(), reason=f"no {LISTS}")
def test_the_groups_of_ucf101s_first_test_list_are_707() -> None:
    rows = ucf101.splits(LISTS / "ucf101", {}).rows[1]
    tests = pl.Series([row.video for row in rows if row.part == "test"])
    numbers = units("ucf101", tests, several_splits=False)
    assert numbers is not None and (len(tests), numbers.max() + 1) == (3783, 707)


def test_a_rows_interval_counts_sources(tmp_path: Path) -> None:
    # Answers are the source's, not the video's: the four videos of each of 100 sources are all right or all wrong.
    logits = [[[5.0, 0.0]] if (video // 4) % 3 else [[0.0, 5.0]] for video in range(400)]
    predictions = invented.from_logits(logits, [0] * 400)
    group = pl.col("video").str.slice(1).cast(pl.Int32) // 4 + 1000
    named = pl.concat_str(pl.lit("A/v_A_g"), group, pl.lit("_c"), pl.col("video").str.slice(1))
    predictions = replace(predictions, frame=predictions.frame.with_columns(video=named).sort("video"))
    outcomes = accuracy.outcomes(predictions)
    alone, grouped = (scores.of_accuracy(file, outcomes, predictions.classes).top1 for file in ("shapes", "ucf101"))
    assert (alone.units, grouped.units, grouped.videos) == (400, 100, 400)
    assert grouped.value == alone.value
    assert grouped.high - grouped.low == pytest.approx(2 * (alone.high - alone.low), rel=0.05)


def test_two_splits_that_test_the_same_videos_have_as_many_units_as_videos(tmp_path: Path) -> None:
    params = invented.params(["row", "base"], splits=(1, 2), seeds=(0, 1, 2))
    folder = invented.splits(tmp_path, 60, (1, 2))
    for number in (1, 2):
        path = folder / f"split-{number}.parquet"
        pl.read_parquet(path).with_columns(pl.col("video").str.replace("test_2_", "test_1_")).write_parquet(path)
    row, base = (invented.result(params, name, folder, 0.7, seed) for seed, name in enumerate(("row", "base")))
    assert (row.accuracy.top1.videos, row.accuracy.top1.units) == (120, 60)
    gain = results.difference(row, base)
    assert not isinstance(gain, str) and (gain.videos, gain.less.units) == (120, 60)
