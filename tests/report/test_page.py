"""The page has the CSVs' numbers in one small file that browsers accept."""

import csv
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.aggregate import reference
from pipeline.errors import UserError
from pipeline.papers.published import PAPERS
from pipeline.report.table import plain

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")


class Tables(HTMLParser):
    """A parser of the page's tables: CSV path -> rows of (column, exact value)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.keys: dict[str, list[str]] = {}
        self.path = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "table":
            self.path = values["data-path"] or ""
            self.tables[self.path], self.keys[self.path] = [], []
        if tag == "tr" and "data-row" in values:
            self.tables[self.path].append([])
        if tag == "th" and "data-key" in values:
            self.keys[self.path].append(values["data-key"] or "")
        if "data-value" in values:
            self.tables[self.path][-1].append(values["data-value"] or "")


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Return the committed reports."""
    shutil.copytree(ROOT / "reports", tmp_path / "reports", ignore=shutil.ignore_patterns("plots"))
    return tmp_path / "reports"


def test_every_cell_is_the_csvs(reports: Path) -> None:
    text = reference.show(reports).read_text(encoding="utf-8")
    page = Tables(text)
    assert {"quick/tables/ablation.csv", "../parity.csv", "scoreboard.csv"} <= page.tables.keys()
    assert {f"{name}/tables/claims.csv" for name in PAPERS} <= page.tables.keys()
    islands = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    for path, rows in page.tables.items():
        with (reports / "reference" / path).open(newline="", encoding="utf-8") as file:
            expected = list(csv.DictReader(file))
        shown = [[plain(value) for value in row] for row in rows]
        assert [[row[key] for key in page.keys[path]] for row in expected] == shown
        stem = path.removesuffix(".csv").replace("/tables/", "-").replace("../", "costs-")
        island = islands[stem if "-" in stem else f"first-{stem}"]
        filled = [{key: value for key, value in row.items() if value or key == "experiment"} for row in expected]
        assert [{key: plain(value) for key, value in row.items()} for row in island] == filled


def test_every_table_is_on_it(reports: Path) -> None:
    listed = Tables(reference.show(reports).read_text(encoding="utf-8")).tables
    tables = {path.with_suffix(".csv") for path in reports.glob("reference/*/tables/*.json")}
    empty = {path for path in tables if len(path.read_text(encoding="utf-8").splitlines()) < 2}  # a figure not run
    shown = {str((reports / "reference" / path).resolve()) for path in listed}
    assert {str(path) for path in tables - empty if path.stem not in ("speed", "scoreboard")} <= shown


def test_it_is_one_small_file_and_the_same_each_time(reports: Path) -> None:
    first = reference.show(reports).read_bytes()
    assert reference.show(reports).read_bytes() == first
    assert len(first) < 2 * 2**20
    assert b'src="http' not in first and b"url(http" not in first and b"<link" not in first


def test_text_is_escaped(reports: Path) -> None:
    path = reports / "reference" / "quick" / "tables" / "ablation.json"
    path.write_text(path.read_text().replace('"tsn"', '"</script><b>tsn"'))
    text = reference.show(reports).read_text(encoding="utf-8")
    assert "<b>tsn" not in text


def test_a_damaged_table_is_named(reports: Path) -> None:
    path = reports / "reference" / "quick" / "tables" / "ablation.json"
    table = json.loads(path.read_text())
    table["rows"][0][0].pop()  # a cell that lacks a value
    path.write_text(json.dumps(table))
    with pytest.raises(UserError, match=r"ablation\.json is damaged"):
        reference.show(reports)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(reports: Path, tmp_path: Path, scheme: str) -> None:
    pytest.importorskip("axe_playwright_python", reason="needs the extra test-all")
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    path = reference.show(reports)
    messages: list[str] = []
    with sync_playwright() as playwright:
        options = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *options])
        view = browser.new_page(color_scheme=scheme, viewport={"width": 390, "height": 844})  # a phone's
        view.on("console", lambda message: messages.append(message.text))
        view.on("pageerror", lambda error: messages.append(str(error)))
        view.goto(path.as_uri())
        violations = Axe().run(view).response["violations"]
        serious = [violation for violation in violations if violation["impact"] in ("serious", "critical")]
        assert not serious, json.dumps(serious)[:2000]
        assert view.evaluate("document.documentElement.scrollWidth <= window.innerWidth")  # tables scroll, not the page

        rows = view.locator("tbody tr:visible")
        everything = rows.count()
        view.select_option("#verdict", "these nets differ")
        assert 0 < rows.count() < everything
        assert set(rows.evaluate_all("all => all.map(row => of(row).verdict)")) == {"these nets differ"}
        view.select_option("#verdict", "")

        table = view.locator('table[data-path="quick/tables/ablation.csv"]')
        column = Tables(path.read_text(encoding="utf-8")).keys["quick/tables/ablation.csv"].index("top1")
        shown = "all => all.map(cell => cell.getBoundingClientRect()).filter(box => box.width).map(box => box.right)"
        ends = table.locator("tbody :is(th, .range, td:has(.verdict))").evaluate_all(shown)
        assert len(ends) > 2 and max(ends) <= 390  # row, value, difference and verdict fit
        values = f"all => all.map(row => Number(row.children[{column}].dataset.value))"
        table.locator("thead button").nth(column).click()
        table.locator("thead th[aria-sort=ascending]").wait_for()
        ordered = table.locator("tbody tr").evaluate_all(values)
        assert ordered == sorted(ordered) and len(ordered) > 1
        table.locator("tbody button").first.click()
        assert view.locator("dialog").is_visible() and "protocol" in view.locator("dialog").inner_text()
        view.keyboard.press("Escape")

        view.goto(path.as_uri())
        assert view.locator("h2").first.inner_text() == "Verdicts on the printed gains"
        links = view.locator("nav a").evaluate_all("all => all.map(link => link.getAttribute('href'))")
        assert all(view.locator(f"[id='{link[1:]}']").count() == 1 for link in links) and len(links) > 50
        view.screenshot(path=tmp_path / "page.png")
        picture = cv2.imread(str(tmp_path / "page.png"), cv2.IMREAD_GRAYSCALE)
        counts = np.bincount(picture.ravel(), minlength=256)
        ground = int(counts.argmax())
        assert ground > 230 if scheme == "light" else ground < 40
        assert 0.5 < counts[ground] / counts.sum() < 0.97  # not an empty page
        assert max(ground - int(picture.min()), int(picture.max()) - ground) > 150  # text that can be read
        browser.close()
    assert not messages
