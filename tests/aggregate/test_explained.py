"""The page's commands explain the rows that they stand for."""

import html
import re
import shlex
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from pipeline.aggregate import provenance, reference
from pipeline.config import load
from pipeline.config.schema import Params
from pipeline.papers.published import PAPERS
from stages.repro.compose import composed
from tests.support.command import called

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """Return the words of each command on the page of reference results."""
    reports = tmp_path_factory.mktemp("page") / "reports"
    shutil.copytree(ROOT / "reports", reports, ignore=shutil.ignore_patterns("plots", "predictions"))
    text = reference.show(reports).read_text(encoding="utf-8")
    return [shlex.split(html.unescape(command)) for command in re.findall(r'data-explain="(.*?)"', text)]


@pytest.fixture(scope="module")
def params() -> Callable[[str], Params]:
    """Return a function that composes a suite once."""

    @cache
    def of(suite: str) -> Params:
        kept = ROOT / "reports/reference" / suite / "params.yaml"
        return load.load(kept) if kept.is_file() else composed(suite)

    return of


def test_every_table_of_the_page_is_explained(
    commands: list[list[str]], params: Callable[[str], Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    rows: dict[tuple[str, str], list[str]] = {}
    for actionbench, explain, option, suite, kept, table, row in commands:
        assert (actionbench, explain, option, kept) == ("actionbench", "explain", "--suite", "--reference")
        rows.setdefault((suite, table), []).append(row)
    assert {table for suite, table in rows if suite == "quick"} >= {"ablation", "comparison", "order", "time"}
    for (suite, table), labels in rows.items():
        measured = reference.has_predictions(Path("reports"), suite)  # which takes long
        for row in labels[:1] if measured or suite in PAPERS else labels:
            about = provenance.explain(params(suite), table, row, provenance.reference(Path(), suite))
            assert about["row"] == row and about["table"].startswith(f"{suite}/{table}")
            assert not measured or suite in PAPERS or (about["result"].startswith("top-1 ") and "MLflow" not in about)


def test_the_command_runs(
    commands: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    chosen = {command[3]: command for command in commands if command[3] in ("jhmdb", "mobilenet", "eam")}
    for suite, (_, *words) in chosen.items():
        code, out, err = called(capsys, *words)
        assert (code, err) == (0, "") and f"table: {suite}/" in out and f"row: {words[-1]}\n" in out
    code, _, err = called(capsys, "explain", "--suite", "jhmbd", "ablation", "x")
    assert code == 2 and "did you mean 'jhmdb'" in err


def test_a_row_whose_predictions_git_does_not_hold_is_explained_by_its_table(
    commands: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("conf", "dvc.yaml", "dvc.lock", "params.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    kept = Path("reports") / "reference" / "mobilenet" / "tables"
    shutil.copytree(ROOT / kept, tmp_path / kept)
    (tmp_path / "reports" / "papers").symlink_to(ROOT / "reports" / "papers")
    monkeypatch.chdir(tmp_path)
    command = next(command for command in commands if command[3] == "mobilenet")
    code, out, err = called(capsys, *command[1:])
    assert (code, err) == (0, "") and "predictions: not in git" in out and "  top1: " in out
