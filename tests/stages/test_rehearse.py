"""`actionbench rehearse` names failures, and a failure stops no other row."""

import argparse
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models import video
from pipeline.config import load
from pipeline.config.schema import Params
from pipeline.errors import UserError
from pipeline.train.run import Run
from stages.commands import rehearse, trial
from stages.repro.compose import composed
from tests.support.quick import ROOT, quick


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rehearse in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rehearse, "in_process", trial.rehearsal)


def rows(params: Params, *names: str, **recipe: Any) -> Params:
    """Return params of some rows with changes of the recipe."""
    chosen = {name: params.experiments[name] for name in names}
    return replace(params, experiments=chosen, recipes={"quick": replace(params.recipes["quick"], **recipe)})


def test_rows_of_one_net_and_recipe_are_rehearsed_once_and_cost_what_both_do() -> None:
    params = quick()
    params = replace(params, experiments={"tsn": params.experiments["tsn"], "again": params.experiments["tsn"]})
    (both,) = rehearse.rehearse(params, steps=3, clips=3, price=2.0)
    result = both.found
    assert (both.rows, both.weights, result.error) == (("tsn", "again"), "none", "")
    assert len(result.losses) == 3 and result.losses[-1] < result.losses[0] and min(result.norms) > 0
    # Two rows of some seeds each: 480 videos in 8 epochs, and 400 in one view and under each probe.
    tested = 400 * (1 + len(params.protocols["center"].probes))
    seeds = len(params.experiments["tsn"].seeds)
    seconds = 2 * seeds * (480 * 8 / result.clips_per_second + tested / result.views_per_second)
    assert both.hours == pytest.approx(seconds / 3600) and both.dollars == pytest.approx(seconds / 1800)


def test_probes_cost_and_windows_are_said_to_count_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rehearse, "in_process", lambda *_: trial.Rehearsal("CPU", (2.0, 1.0), (), 0, 10.0, 20.0))
    params = rows(quick(), "tsn", epochs=1)
    plain = replace(params.protocols["center"], probes=())
    hours, seeds = {}, len(params.experiments["tsn"].seeds)
    for name, protocol in {
        "plain": plain,
        "probed": replace(plain, probes=("static",)),
        "windows": replace(plain, sampling="windows"),
    }.items():
        (done,) = rehearse.rehearse(replace(params, protocols={"center": protocol}), 2, 1, None)
        hours[name] = 3600 * (done.hours or 0)
        assert not rehearse.show(replace(params, protocols={"center": protocol}), 2, 1, None, json_=False)
        said = "where its length decides the number: tsn\n" in capsys.readouterr().out
        assert said == (name == "windows")
    assert hours["plain"] == hours["windows"] == pytest.approx(seeds * (480 / 10 + 400 / 20))
    assert hours["probed"] == pytest.approx(seeds * (480 / 10 + 2 * 400 / 20))


@pytest.mark.parametrize("error", [MemoryError(), TypeError("an int")])
def test_any_failure_stops_no_other_row(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> trial.Rehearsal:
        raise error

    monkeypatch.setattr(Run, "net", fails)
    done = list(rehearse.rehearse(rows(quick(), "tsn", "tsm"), 1, 1, None))
    assert [each.found.error for each in done] == [str(error) or "MemoryError"] * 2


def test_each_failure_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    params = rows(quick(), "tsn", lr=1e30)
    assert rehearse.show(params, 3, None, None, json_=True)
    out, err = capsys.readouterr()
    (record,) = json.loads(out)["rehearsed"]
    assert record["found"]["error"].startswith("step 2: loss nan") and "1 of 1: tsn: step 2" in err
    (frozen,) = rehearse.rehearse(rows(quick(), "tsn", frozen=("res9",)), 1, 2, None)
    assert "recipe freezes 'res9'" in frozen.found.error
    (long,) = rehearse.rehearse(rows(quick(), "action", lr=1e-30), 2, 2, None)
    assert "doesn't fall on a repeated batch" in long.found.error


def test_a_loss_without_a_lower_bound_may_rise_if_the_classification_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    params, added = rows(quick(), "tsn"), iter([-9.0, -6.0, -3.0] * 2)
    monkeypatch.setattr(video.VideoNet, "penalty", lambda net, criterion: torch.tensor(next(added)))
    (tsn,) = rehearse.rehearse(params, 3, 2, None)
    assert tsn.found.error == "" and tsn.found.losses[0] < tsn.found.losses[-1]
    (still,) = rehearse.rehearse(rows(quick(), "tsn", lr=1e-30), 3, 2, None)
    assert "doesn't fall on a repeated batch" in still.found.error


def test_several_at_a_time_are_as_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def recorded(row: trial.Row, *settings: Any) -> trial.Rehearsal:
        threads.append(settings[-1])
        return trial.Rehearsal(error=row.name)

    monkeypatch.setattr(rehearse, "in_process", recorded)
    monkeypatch.setattr(rehearse, "cores", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    names = ["tsn", "tsm", "action"]
    for free, clips, expected in ((17 << 30, 1, 2), (64 << 30, 1, 1), (1 << 30, 1, 4), (64 << 30, None, 4)):
        monkeypatch.setattr(rehearse.psutil, "virtual_memory", lambda free=free: argparse.Namespace(available=free))
        threads.clear()
        done = list(rehearse.rehearse(rows(quick(), *names), 1, clips, None))
        assert [each.found.error for each in done] == names and threads == [expected] * 3


def test_missing_weights_are_named_and_present_ones_load(capsys: pytest.CaptureFixture[str]) -> None:
    params = rows(quick(), "tsn")
    params = replace(params, experiments={"tsn": replace(params.experiments["tsn"], weights="w.pth")})
    assert not rehearse.show(params, 1, 2, None, json_=False)
    out = capsys.readouterr().out
    assert "weights missing: w.pth" in out and "no row would fail" in out
    torch.save(video.build("resnet", "tiny", "none", 4, 9).state_dict(), "w.pth")
    (loaded,) = rehearse.rehearse(params, 1, 2, None)
    assert (loaded.weights, loaded.found.error) == ("loaded", "")
    torch.save(video.build("resnet3d", "tiny", "none", 4, 9).state_dict(), "w.pth")
    (misfit,) = rehearse.rehearse(params, 1, 2, None)
    assert "does not fit resnet tiny" in misfit.found.error


def killed(*_: Any) -> trial.Rehearsal:
    os.kill(os.getpid(), signal.SIGKILL)
    return trial.Rehearsal()


def test_a_killed_process_takes_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(rehearse, "rehearsal", killed)
    (rehearsed,) = rehearse.rehearse(rows(quick(), "tsn"), 1, 2, None)
    assert "was killed" in rehearsed.found.error and rehearsed.hours is None


def test_a_suite_is_composed_as_dvc_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert composed("quick") == load.load(ROOT / "params.yaml")
    with pytest.raises(UserError, match=r"no suite 'quik'.*did you mean 'quick'"):
        composed("quik")
