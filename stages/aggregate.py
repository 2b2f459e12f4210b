"""Stage 6: the suite's comparison and ablation tables, and its pictures, from predictions alone."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline import exports, figures, fusion, page, params, published, replication, results, tables
from stages import DATA, run

REPORTS = Path("reports")
AT_ONCE = 2  # rows that are read and measured: bounds memory, as one of many views may hold a GiB


def aggregate() -> None:
    given = params.load()
    rows = (*given.experiments, *given.trajectories)
    with ThreadPoolExecutor(AT_ONCE) as pool:  # polars and NumPy let the other thread run
        found = {row.name: row for row in pool.map(lambda name: results.measure(results.read(given, name, DATA)), rows)}
    found |= {row: results.measure(fusion.read(given, row, DATA)) for row in given.fusions}
    folder, pictures = REPORTS / "tables" / given.suite, REPORTS / "figures" / given.suite
    for name, table in given.tables.items():
        tables.save(folder, name, table, found)
        if table.base:
            exports.save_gains(folder / f"{name}-classes.csv", found[table.base], [found[row] for row in table.rows])
    exports.save_classes(folder / "classes.csv", found.values())
    exports.save_speed(folder, found.values(), published.speeds(given.suite, REPORTS / "papers"))
    figures.accuracies(list(found.values()), pictures / "accuracy.svg")
    logs = {row: sorted((DATA / "logs" / row).glob("*.jsonl")) for row in found}
    figures.learning_curves(logs, pictures / "curves.svg")
    for row, result in found.items():
        figures.confusion(result, pictures / f"confusion-{row}.svg")
    for row, base in sorted({(row, table.base) for table in given.tables.values() if table.base for row in table.rows}):
        runs = results.common(found[row], found[base])
        if row != base and not isinstance(runs, str) and not found[row].several:
            path = pictures / f"confusion-{row}-less-{base}.svg"
            figures.confusion_change(found[row], found[base], runs, path)
            exports.save_confusion_change(path.with_suffix(".csv"), found[row], found[base], runs)
    replication.save(folder, pictures, given, found, REPORTS / "papers", REPORTS / "parity.csv")
    shown = page.build(REPORTS)
    print(f"tables in {folder}, pictures in {pictures}, all tables on {shown}")


if __name__ == "__main__":
    run(aggregate)
