"""Registered weights through the command line, stage `inputs` and the doctor."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.config import load
from pipeline.errors import UserError
from stages import cli, inputs
from stages.commands import doctor
from tests.support.machines.served import serving
from tests.support.registry import registered

ROOT = Path(__file__).parents[2]
CONTENT = b"a file of weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = Path("data/weights/net-1.pth")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Start a web server with the weights, and create a project with rows tsn and tsm.

    Both rows start from the weights by name.
    """
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    raw = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for row in ("tsn", "tsm"):
        raw["experiments"][row]["weights"] = "net"
    (tmp_path / "params.yaml").write_text(json.dumps(raw))
    monkeypatch.chdir(tmp_path)
    with serving(CONTENT) as http:
        entry = {"file": FILE.name, "url": http.url, "sha256": SHA256[:8]}
        registered(monkeypatch, tmp_path / "registry", net=entry, other={"file": "other.pth"})
        yield http


def command(capsys, *arguments):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(sys, "argv", ["actionbench", *arguments])
        cli.main()
    return int(left.value.code or 0), capsys.readouterr()


def listed(capsys):
    code, printed = command(capsys, "weights", "--json")
    assert code == 0
    return {entry["name"]: (entry["state"], entry["rows"]) for entry in json.loads(printed.out)}


def test_the_command_lists_and_fetches(server, capsys):
    assert listed(capsys) == {"net": ("missing", 2), "other": ("by hand", 0)}
    code, printed = command(capsys, "weights", "net")
    assert (code, printed.out) == (0, f"{FILE}\n") and FILE.read_bytes() == CONTENT
    assert listed(capsys)["net"] == ("ready", 2)
    assert "net" in command(capsys, "weights")[1].out
    FILE.write_bytes(b"half")
    assert listed(capsys)["net"] == ("damaged", 2)


def test_the_command_refuses_what_it_cannot_fetch(server, capsys):
    code, printed = command(capsys, "weights", "nett")
    assert code == 2 and "no weights 'nett'; did you mean 'net'? known: net, other" in printed.err
    code, printed = command(capsys, "weights", "other")
    assert code == 2 and "download other.pth from https://example.org/net" in printed.err


def test_a_row_of_unknown_weights(server):
    raw = json.loads(Path("params.yaml").read_text())
    raw["experiments"]["tsn"]["weights"] = "nett"
    with pytest.raises(UserError, match=r"experiments\.tsn\.weights: no 'nett'; did you mean 'net'\?"):
        load.parse(raw)
    raw["experiments"]["tsn"]["weights"] = "my/nett.pth"  # a path is a path
    assert load.parse(raw).experiments["tsn"].weights == "my/nett.pth"


def digest(row):
    return json.loads(Path(f"reports/inputs/rows/{row}.json").read_text())["weights"]


def test_stage_inputs_fetches_before_anything_trains(server, capsys):
    inputs.main()
    assert digest("tsn") == digest("tsm") == SHA256 and digest("se") is None
    assert len(server.asked) == 1
    FILE.unlink()  # results outlive the file that they were made from
    inputs.main()
    assert digest("tsn") == SHA256 and len(server.asked) == 1
    FILE.with_name("net.pth").write_bytes(b"mine")
    inputs.main()
    assert digest("tsn") == hashlib.sha256(b"mine").hexdigest()


def test_what_cannot_be_fetched_stops_no_other_row(server, capsys):
    server.errors = [404]
    inputs.main()
    assert "warning: weights net: " in capsys.readouterr().err
    assert digest("tsn") == "absent" and digest("se") is None


def test_the_doctor_names_missing_weights(server):
    check = doctor.weights(load.load())
    assert (check.state, check.found) == (
        "warning",
        "not downloaded: net",
    ) and "`actionbench weights net`" in check.mend
    raw = json.loads(Path("params.yaml").read_text())
    raw["experiments"]["se"]["weights"] = "other"
    check = doctor.weights(load.parse(raw))
    assert (check.state, check.found) == ("broken", "weights other: no file at data/weights/other.pth")
    FILE.parent.mkdir(parents=True)
    FILE.write_bytes(CONTENT)
    assert doctor.weights(load.load()).state == "ok"
