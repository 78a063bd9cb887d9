"""`make bench`: print the table of costs; ARGS=fizzbuzz selects the rows of that name.

The table is Markdown. Each round and the machine are saved to logs/bench/<date_time>.json, and the
cost by size of the data is drawn to logs/bench/<date_time>.png.
"""

import sys
from datetime import datetime
from importlib.util import find_spec

from src.kindling.errors import nearest

if find_spec("src.tour") is None:
    sys.exit("error: src/tour, whose loops these benchmarks compare with, was deleted")

from tests.benchmarks import growth, guests, loaders, processes, steps, table
from tests.benchmarks.measure import ROOT, one_core

ROWS = {**steps.ROWS, **guests.ROWS, **processes.ROWS, **loaders.ROWS, **growth.ROWS}


def chosen(names: list[str]) -> list[str]:
    """Return the rows whose names start with one of `names`; all rows if it is empty.

    Raises:
        SystemExit: no row starts with one of the names.
    """
    for name in names:
        if not any(row.startswith(name) for row in ROWS):
            print(
                f"error: {name}: there is no such row{nearest(name, list(ROWS))}", file=sys.stderr
            )
            print(f"rows: {' '.join(ROWS)}", file=sys.stderr)
            raise SystemExit(2)
    return [row for row in ROWS if not names or any(row.startswith(name) for name in names)]


def measured(row: str) -> list[table.Result]:
    """Measure a row; one that fails becomes a row with the reason, and does not stop the others."""
    print(f"measuring {row} ...", file=sys.stderr, flush=True)
    try:
        with one_core():
            return ROWS[row]()
    except Exception as error:
        return [table.Result(row, "failed", note=f"{type(error).__name__}: {error}")]


def main() -> None:
    """Measure the chosen rows; print and save them."""
    results = [result for row in chosen(sys.argv[1:]) for result in measured(row)]
    about = table.machine()
    print(f"{table.sentence(about)}\n\n{table.markdown(results)}\n")
    path = ROOT / "logs" / "bench" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table.as_json(results, about))
    print(f"each round: {path.relative_to(ROOT)}")
    if curves := [result for result in results if "sizes" in result.more]:
        growth.draw(curves, path.with_suffix(".png"))
        print(f"cost by size: {path.with_suffix('.png').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
