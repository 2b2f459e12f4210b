"""A paper's tables show this workspace's results before the reference's, and never beside them."""

from pathlib import Path

import pytest

from stages.commands.recompute import results

ROOT = Path(__file__).parents[2]


def test_the_papers_show_what_ran_here_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("conf", "params.yaml", "reports"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    saved, data = Path("reports/reference/eam"), Path("data")
    assert results("eam", here=True)[1] == saved
    (tmp_path / "data/predictions/eam-resnet3d50-hmdb51").mkdir(parents=True)
    params, folder = results("eam", here=True)
    assert (params.suite, params.tier.name, folder) == ("eam", "full", data)
    params, folder = results("eam", here=False)
    assert (params.suite, params.tier.name, folder) == ("eam", "mini", saved)
    assert results("maagn", here=False)[1] == data  # no reference
