"""`actionbench convert` writes an authors' file under our names, strictly."""

from pathlib import Path

import pytest
import torch

from tests.support.command import called
from tests.support.nets.released import net, released

ROOT = Path(__file__).parents[2]
PARAMS = (ROOT / "params.yaml").read_text()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with suite quick's params."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("release", "row"), [("action", "action"), ("tpn", "tpn"), ("hara", "r3d")])
def test_a_release_is_written_by_our_names(
    here: Path, capsys: pytest.CaptureFixture[str], release: str, row: str
) -> None:
    source = net(release, seed=1)
    released(release, source, here / "release.pth")
    code, out, err = called(capsys, "convert", "release.pth", "--row", row)
    assert (code, err) == (0, "") and out.startswith("release-ours.pth: ") and "a classifier of 7 classes" in out
    written = torch.load(here / "release-ours.pth", weights_only=True)
    original = source.state_dict()
    assert written.keys() == original.keys()
    assert all(torch.equal(written[name], value) for name, value in original.items())


def test_the_row_that_fits_is_found(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    released("action", net("action"), here / "release.pth")
    code, out, _ = called(capsys, "convert", "release.pth", "--out", "ours.pth")
    assert code == 0 and "row action, attention action" in out and (here / "ours.pth").is_file()


def test_a_misfit_names_three_of_either_side(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = released("hara", net("hara"), here / "release.pth")
    torch.save({name.replace("bn2", "gn2"): value for name, value in state.items()}, here / "release.pth")
    code, out, err = called(capsys, "convert", "release.pth", "--row", "r3d")
    assert (code, out) == (2, "") and err.count("\n") == 1 and not (here / "release-ours.pth").exists()
    assert "it lacks layer1.0.bn2.weight, layer1.0.bn2.bias, layer1.0.bn2.running_mean, and " in err
    assert "it has the unknown layer1.0.gn2.weight, layer1.0.gn2.bias, layer1.0.gn2.running_mean, and " in err
    assert called(capsys, "convert", "absent.pth")[0] == 2
    assert called(capsys, "convert", "release.pth", "--row", "r3", "--out", "release.pth")[0] == 2
