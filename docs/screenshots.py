"""Take the screenshots of docs/images/: README and tables as a forge shows them, the page, MLflow's views of runs.

`python docs/screenshots.py [PROJECT]` needs Debian's chromium, playwright, and a finished suite in PROJECT/mlflow.db.
"""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from markdown_it import MarkdownIt
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from pipeline.aggregate import reference
from stages.commands.doctor import free_port

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
TABLE = "quick/tables/ablation.csv"  # of the page
TO_TABLE = "table => window.scrollBy(0, table.getBoundingClientRect().top - {above})"
CHROMIUM = "/usr/bin/chromium"
OFFLINE = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
TABLES = "reports/reference/quick/tables"
FORGE = {"readme": "README.md", "table-ablation": f"{TABLES}/ablation.md", "table-time": f"{TABLES}/time.md"}
STYLE = """
body { margin: 0 auto; width: 838px; padding: 24px 32px; color: #1f2328; line-height: 1.5;
       font: 16px -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; }
h1, h2 { border-bottom: 1px solid #d1d9e0; padding-bottom: 0.3em; }
table { display: block; width: max-content; max-width: 100%; overflow: auto; border-collapse: collapse; }
th, td { border: 1px solid #d1d9e0; padding: 6px 13px; } tr:nth-child(2n) { background: #f6f8fa; }
code { font: 85% ui-monospace, "Liberation Mono", monospace; background: #eff1f3; padding: 0.2em 0.4em; }
pre { background: #f6f8fa; padding: 16px; overflow: auto; } pre code { background: none; padding: 0; }
img { max-width: 100%; } a { color: #0969da; text-decoration: none; }
"""  # close to a public forge's: its column is as wide, and a wider table scrolls
COLOURS = 128  # of a picture: keeps it small
PATIENCE = 120.0  # s for MLflow's server to start


def main(project: Path) -> None:
    """Take all screenshots; those of MLflow if the project has a store."""
    IMAGES.mkdir(exist_ok=True)
    page = reference.show(ROOT / "reports")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        for name, width, height, scheme, scroll in (
            ("page", 1280, 800, "light", ""),
            ("page-phone", 390, 844, "light", TO_TABLE.format(above=140)),
            ("page-dark", 1280, 800, "dark", TO_TABLE.format(above=230)),  # below the filters, which stay in view
        ):
            view = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": height})
            view.goto(page.as_uri())
            if scroll:
                view.locator(f"table[data-path='{TABLE}']").evaluate(scroll)
            taken(view, name)
            view.close()
        for name, path in FORGE.items():
            forge(browser, name, ROOT / path)
        if (project / "mlflow.db").is_file():
            with served(project) as address:
                mlflow(browser, address)
        browser.close()


def forge(browser: Browser, name: str, path: Path) -> None:
    """Take the first screen of a Markdown file, rendered as a forge does."""
    body = MarkdownIt("commonmark").enable("table").render(path.read_text(encoding="utf-8"))
    shown = path.with_name(f".{name}.html")  # beside the file, so that its pictures are found
    shown.write_text(f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{body}", encoding="utf-8")
    try:
        view = browser.new_page(viewport={"width": 1024, "height": 1100})
        view.goto(shown.as_uri())
        taken(view, name)
        view.close()
    finally:
        shown.unlink()


def mlflow(browser: Browser, address: str) -> None:
    """Take the runs table, its charts, and the run of the row with the highest accuracy."""
    view = browser.new_page(viewport={"width": 1360, "height": 800})
    view.set_default_timeout(60_000)
    view.goto(address)
    row = view.locator("a[href*='/runs/']").first
    row.wait_for()
    for name in ("Close", "Hide banner"):  # the assistant, and a remark on shared views
        view.get_by_role("button", name=name, exact=True).click()
    settled(view, "mlflow-runs")
    view.locator("label:has(input[value=CHART]), input[value=CHART]").first.click()
    settled(view, "mlflow-chart")
    view.goto(f"{address.partition('#')[0]}{row.get_attribute('href')}?workflowType=machine_learning")
    settled(view, "mlflow-run")


def settled(view: Page, name: str) -> None:
    view.wait_for_timeout(8000)  # charts are drawn one after the other
    taken(view, name)


def taken(view: Page, name: str) -> None:
    path = IMAGES / f"{name}.png"
    view.screenshot(path=path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)


@contextmanager
def served(project: Path) -> Iterator[str]:
    """Yield the address that `actionbench mlflow` prints, while its server runs."""
    command = [str(Path(sys.executable).with_name("actionbench")), "mlflow", "--port", str(free_port())]
    with subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            line = server.stderr.readline()
            address = line.removeprefix("MLflow on ").partition(",")[0]
            end = time.monotonic() + PATIENCE
            while not _answers(address.partition("/#")[0]) and time.monotonic() < end:
                time.sleep(0.5)
            yield address
        finally:
            server.terminate()


def _answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(f"{address}/health", timeout=5).status == 200
    except OSError:
        return False


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
