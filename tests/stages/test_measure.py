"""Measured speed and memory of a row's network, and their table."""

import json
from dataclasses import replace

import pytest
import torch

from models.video import VideoNet
from pipeline.errors import UserError
from stages import cli
from stages.commands import catalogue, measure, trial
from tests.support.quick import ROOT, quick


@pytest.mark.parametrize("planes", [3, 4, 7])
def test_a_rows_passes_see_clips_as_its_recipe_and_protocol_say(monkeypatch, planes):
    two = {"attention": "istpa", "knobs": {"positions": 2, "streams": "attention"}}
    params = quick(**two if planes == 7 else {})
    recipe = replace(params.recipes["quick"], input={3: "rgb", 4: "flow", 7: "rgb+flow"}[planes], stack=2)
    row = trial.Row("tsm", params.experiments["tsm"], recipe, params.protocols["center"], 5)
    seen = []
    inner = VideoNet.forward

    def note(net: VideoNet, clips: torch.Tensor) -> torch.Tensor:
        seen.append((tuple(clips.shape), net.training, torch.is_grad_enabled()))
        return inner(net, clips)

    monkeypatch.setattr(VideoNet, "forward", note)
    actors = trial.passes(row, torch.device("cpu"))
    for name in trial.NAMES:
        actors[name]()
    assert seen == [
        ((2, 6, planes, 48, 48), False, False),
        ((3, 4, planes, 32, 32), True, True),
        ((1, 6, planes, 48, 48), False, False),
    ]


def test_the_costs_of_two_streams_are_counted(tmp_path):
    params = quick(attention="istpa", knobs={"positions": 2, "streams": "reinforced"})
    plain, fails = (row for row in catalogue.costs(params, tmp_path) if row.row in ("tsn", "tsm"))
    assert "streams is 'reinforced'" in fails.error
    recipes = {"quick": replace(params.recipes["quick"], input="rgb+flow", stack=2)}
    counted = {row.row: row for row in catalogue.costs(replace(params, recipes=recipes), tmp_path)}
    assert counted["tsm"].macs > 1.5 * plain.macs
    assert "istpa takes both" in counted["tsn"].error


def test_rows_take_turns_and_one_that_cannot_be_built_says_so(monkeypatch, tmp_path):
    params = quick(knobs={"fold": 1})
    order = []
    monkeypatch.setattr(measure, "timed", lambda do, device: order.append(do) or 0.5 + len(order) % 2)
    monkeypatch.setattr(measure, "memory_apart", lambda row: (10, 20))
    tsn, tsm, se = measure.measure(params, tmp_path, ["tsn", "tsm", "se"], turns=2)
    assert "fold is 1" in tsm.error and tsm.forward is None
    assert not tsn.error and not se.error
    assert len(order) == 3 * 2 * 3  # three passes, two rows, two turns and one that does not count
    assert order[:6] == order[6:12] and len(set(order)) == 6
    assert (tsn.forward_bytes, tsn.training_bytes) == (10, 20)
    # Turns take 0.5 and 1.5 s, by their place; a forward batch is 2 clips.
    assert {tsn.forward.least, tsn.forward.most} <= {2 / 1.5, 2 / 0.5}
    assert tsn.forward.least <= tsn.forward.median <= tsn.forward.most


def test_memory_is_a_process_of_its_own_and_a_step_takes_more(tmp_path):
    params = quick()
    row = trial.Row("tsm", params.experiments["tsm"], params.recipes["quick"], params.protocols["center"], 5)
    forward, training = measure.memory_apart(row)
    assert 0 < forward < training < 2**30
    assert trial.resident("VmHWM") >= trial.resident() > 2**20


def test_an_unknown_row_is_named_with_the_known(tmp_path):
    with pytest.raises(UserError, match=r"no row 'tsmm'; did you mean 'tsm'\?"):
        measure.measure(quick(), tmp_path, ["tsmm"])


def test_the_command_prints_a_table_or_json(monkeypatch, capsys):
    spread = measure.Spread(2.0, 1.0, 3.0)
    measured = [measure.Measured("tsm", "CPU", "fp32", spread, spread, spread, 2_000_000, 3_000_000)]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(measure, "measure", lambda params, data, names: measured)
    monkeypatch.setattr("sys.argv", ["actionbench", "models", "tsm", "--measure", "--json"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code
    assert json.loads(capsys.readouterr().out)[0]["forward"] == {"median": 2.0, "least": 1.0, "most": 3.0}
    monkeypatch.setattr("sys.argv", ["actionbench", "models", "--measure"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code
    printed = " ".join(capsys.readouterr().out.split())
    assert "2.0 MB" in printed and "medians of 5 turns" in printed
