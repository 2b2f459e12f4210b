"""bench/models.py at a tiny size stores measurements and names failures."""

import csv
from pathlib import Path
from typing import Any

import pytest

from bench import models, nets, report


def test_a_failing_net_stops_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny = models.Net("resnet", "tiny", "tsm", 2, 4, 64, 3)
    unfit = tiny._replace(attention="st_manet")  # which needs a 3D backbone
    chosen = {"TSM": tiny, "EAM": tiny._replace(backbone="resnet3d", attention="eam"), "unfit": unfit}
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["models", "--turns", "2", "--compiled"])
    for module in (models, nets):
        monkeypatch.setattr(module, "NETS", chosen)
    monkeypatch.setattr(models, "CUDA", False)
    monkeypatch.setattr(models, "apart", lambda name, version: 2**20)
    original = models.passes

    def passes(net: models.Net, version: str) -> dict[str, Any]:
        if version == models.COMPILED and net.attention == "tsm":
            raise RuntimeError("no compiler\nand so on")
        return original(net, "bf16" if version == models.COMPILED else version)

    monkeypatch.setattr(models, "passes", passes)
    with pytest.raises(SystemExit, match=r"^TSM, bf16, compiled: RuntimeError: no compiler\nunfit: ValueError: "):
        models.main()
    text = (tmp_path / "models.md").read_text()
    assert "Not measured: TSM, bf16, compiled: RuntimeError: no compiler." in text
    assert "Not measured: unfit: ValueError: " in text and "unfit resnet" not in text
    table = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert len({len(line) for line in table}) == 1
    at = table[0].index("bf16, compiled is faster by")
    assert [(line[0], bool(line[at].strip())) for line in table[2:]] == [
        ("| TSM", False),
        ("| TSM", False),
        ("| EAM", True),
        ("| EAM", True),
    ]
    with (tmp_path / "models.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * (3 + 4)  # turns, passes, versions of both nets
    assert {row["training_bytes"] for row in rows} == {str(2**20)}
