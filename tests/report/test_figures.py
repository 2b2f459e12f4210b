"""Figures are reproducible SVG with real text, and show all rows."""

import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from pipeline.measure.results import Result, confused
from pipeline.report import figures
from tests.support import invented
from tests.support.printed import texts


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    params = invented.params(["tsn", "eam", "late"])
    folder = invented.splits(tmp_path_factory.mktemp("splits"))
    tsn, eam = (invented.result(params, row, folder, seed=number) for number, row in enumerate(("tsn", "eam")))
    return [tsn, replace(eam, name="eam $x$ & co"), invented.measured(params, "late", "not run")]


def logs(folder: Path, count: int = 2) -> dict[str, list[Path]]:
    """Write two runs of three epochs for each row, among log lines of another kind."""
    paths: dict[str, list[Path]] = {}
    for row in range(count):
        for seed in range(2):
            path = folder / f"{row}-{seed}.jsonl"
            lines = [
                {"kind": "epoch", "epoch": epoch, "loss": 2.0 / (epoch + 1 + seed), "lr": 0.1} for epoch in range(3)
            ]
            path.write_text(
                "".join(json.dumps(line) + "\n" for line in [{"kind": "steps", "epoch": 0, "step": 1}, *lines])
            )
            paths.setdefault(f"row {row}", []).append(path)
    return paths


def test_accuracies_show_every_row_chance_and_n(rows: list[Result], tmp_path: Path) -> None:
    figures.accuracies(rows, tmp_path / "a.svg")
    shown = texts(tmp_path / "a.svg")
    assert {"tsn", "eam $x$ & co", "late", "not run", "chance", "shapes (n = 60)"} <= set(shown)


def test_figures_of_more_rows_than_one_can_read_say_how_many_they_leave_out(rows: list[Result], tmp_path: Path) -> None:
    many = [replace(rows[0], name=f"row {number}", costs={"macs": 3e9}) for number in range(figures.MOST + 3)]
    figures.accuracies(many, tmp_path / "a.svg")
    figures.against_macs(many, tmp_path / "m.svg")
    for name, shown in {"a": texts(tmp_path / "a.svg"), "m": texts(tmp_path / "m.svg")}.items():
        assert any(text.endswith(", the first 100 of 103 rows") for text in shown), name
        assert "row 99" in shown and "row 100" not in shown, name


def test_accuracies_have_a_dot_for_each_seed(rows: list[Result], tmp_path: Path) -> None:
    figures.accuracies(rows[:1], tmp_path / "a.svg")
    dots = [node for node in ElementTree.parse(tmp_path / "a.svg").iter("{http://www.w3.org/2000/svg}g")
            if node.attrib.get("id", "").startswith("line2d_") and len(list(node.iter("{http://www.w3.org/2000/svg}use"))) == 2]  # fmt: skip  # noqa: E501
    assert dots and len(rows[0].seeds) == 2


def test_accuracy_against_macs_names_the_rows_that_have_both(rows: list[Result], tmp_path: Path) -> None:
    figures.against_macs([replace(rows[0], costs={"macs": 3e9}), *rows[1:]], tmp_path / "m.svg")
    assert {"tsn", "shapes", "MACs of one view, G"} <= set(texts(tmp_path / "m.svg"))
    assert "late" not in texts(tmp_path / "m.svg")
    figures.against_macs(rows, tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


def test_confusion_names_the_classes(rows: list[Result], tmp_path: Path) -> None:
    figures.confusion(rows[0], tmp_path / "c.svg")
    assert {*invented.CLASSES, "tsn (shapes, n = 60)", "actual", "predicted"} <= set(texts(tmp_path / "c.svg"))
    figures.confusion(rows[2], tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


def test_cells_of_a_confusion_are_one_image_of_a_pixel_each(rows: list[Result], tmp_path: Path) -> None:
    figures.confusion(rows[0], tmp_path / "c.svg")
    cells = next(ElementTree.parse(tmp_path / "c.svg").iter("{http://www.w3.org/2000/svg}image"))
    png = base64.b64decode(cells.attrib["{http://www.w3.org/1999/xlink}href"].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    shares = confused(rows[0], rows[0].runs)[:, : len(invented.CLASSES)]
    assert pixels.shape[:2] == shares.shape
    # Rows from above are actual classes, and a larger share is darker.
    darkness = -pixels.astype(int).sum(axis=2)
    order = np.argsort(shares, axis=None)
    assert (np.diff(darkness.ravel()[order]) >= 0).all() and len(set(darkness.ravel().tolist())) > 2
    numbers = [text for text in texts(tmp_path / "c.svg") if text.isdigit()]
    assert numbers == [f"{100 * share:.0f}" for share in shares.ravel() if share]


def test_changes_of_confusions_name_both_rows(rows: list[Result], tmp_path: Path) -> None:
    figures.confusion_change(rows[1], rows[0], rows[0].runs, tmp_path / "d.svg")
    shown = texts(tmp_path / "d.svg")
    assert {*invented.CLASSES, "eam $x$ & co less tsn (shapes, n = 60)", "change of the share"} <= set(shown)
    assert any(text.startswith("+") for text in shown)
    figures.confusion_change(rows[0], rows[0], rows[0].runs, tmp_path / "same.svg")
    assert not any(text.startswith("+") for text in texts(tmp_path / "same.svg"))


def test_learning_curves_name_the_rows_and_pass_over_what_is_not_there(tmp_path: Path) -> None:
    runs = {**logs(tmp_path, 9), "absent": [tmp_path / "absent.jsonl"]}
    figures.learning_curves(runs, tmp_path / "l.svg")
    shown = texts(tmp_path / "l.svg")
    assert {f"row {row}" for row in range(9)} <= set(shown) and "absent" not in shown
    figures.learning_curves({}, tmp_path / "empty.svg")
    assert "epoch" in texts(tmp_path / "empty.svg")


def test_runs_with_one_learning_rate_are_one_line(tmp_path: Path) -> None:
    paths = [tmp_path / f"{run}.jsonl" for run in range(3)]
    for run, path in enumerate(paths):
        path.write_text("".join(json.dumps({"epoch": n, "loss": 2.0 + run, "lr": 0.1}) + "\n" for n in range(3)))
    figures.learning_curves({"row": paths}, tmp_path / "l.svg")
    root = ElementTree.parse(tmp_path / "l.svg").iter("{http://www.w3.org/2000/svg}path")
    light = [node for node in root if "stroke-opacity: 0.3" in node.attrib.get("style", "")]
    assert len(light) == 3  # the losses differ


def test_bytes_are_the_same_each_time_whatever_the_users_style(rows: list[Result], tmp_path: Path) -> None:
    runs = logs(tmp_path)
    for name in ("one", "two"):
        figures.accuracies(rows, tmp_path / name / "accuracies.svg")
        figures.confusion(rows[0], tmp_path / name / "confusion.svg")
        figures.confusion_change(rows[1], rows[0], rows[0].runs, tmp_path / name / "change.svg")
        figures.learning_curves(runs, tmp_path / name / "learning.svg")
        matplotlib.rcParams.update({"font.size": 30, "axes.facecolor": "black"})
    matplotlib.rcdefaults()
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_one_diverging_row_does_not_flatten_the_others_losses(tmp_path: Path) -> None:
    runs = logs(tmp_path, 2)
    runs["row 1"][0].write_text("".join(json.dumps({"epoch": n, "loss": 1e4, "lr": 0.1}) + "\n" for n in range(3)))
    figures.learning_curves(runs, tmp_path / "l.svg")
    lines = [
        [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", node.attrib["d"])]
        for node in ElementTree.parse(tmp_path / "l.svg").iter("{http://www.w3.org/2000/svg}path")
        if "stroke-width: 1.6" in node.attrib.get("style", "") and "#0072b2" in node.attrib["style"]
    ]
    heights = [max(line) - min(line) for line in lines if len(line) == 3]
    assert max(heights) > 15  # of about 200


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_many_rows_with_long_names_leave_room_for_the_axes(rows: list[Result], tmp_path: Path) -> None:
    names = [f"a system of many parts and a long name {number}" for number in range(60)]
    figures.against_macs([replace(rows[0], name=name, costs={"macs": 3e9}) for name in names], tmp_path / "m.svg")
    assert names[59] in texts(tmp_path / "m.svg")
