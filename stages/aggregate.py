"""Stage 6: the suite's comparison and ablation tables, and its pictures, from predictions alone."""

from pathlib import Path

from pipeline import exports, figures, page, params, results, tables
from stages import DATA, run

REPORTS = Path("reports")


def aggregate() -> None:
    given = params.load()
    found = {row: results.measure(results.read(given, row, DATA)) for row in given.experiments}
    folder, pictures = REPORTS / "tables" / given.suite, REPORTS / "figures" / given.suite
    for name, table in given.tables.items():
        tables.save(folder, name, table, found)
    exports.save_classes(folder / "classes.csv", found.values())
    exports.save_speed(folder, found.values())
    figures.accuracies(list(found.values()), pictures / "accuracy.svg")
    logs = {row: sorted((DATA / "logs" / row).glob("*.jsonl")) for row in found}
    figures.learning_curves(logs, pictures / "curves.svg")
    for row, result in found.items():
        if not isinstance(result.accuracy, str):
            figures.confusion(result, pictures / f"confusion-{row}.svg")
    shown = page.build(REPORTS)
    print(f"tables in {folder}, pictures in {pictures}, all tables on {shown}")


if __name__ == "__main__":
    run(aggregate)
