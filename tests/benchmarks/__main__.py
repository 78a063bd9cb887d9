"""make bench: the table of what the project costs; ARGS=fizzbuzz for the rows of that name.

The table is printed as Markdown. Beside it, logs/bench/<date_time>.json has each round and the
machine, and logs/bench/<date_time>.png the cost against the size of the data.
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
    """Return the rows whose name begins with one of the names; all for none.

    Raises:
        SystemExit: a name is the beginning of none.
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
    """Return what a row measures; if it cannot, a row that says why, so that the others go on."""
    print(f"measuring {row} ...", file=sys.stderr, flush=True)
    try:
        with one_core():
            return ROWS[row]()
    except Exception as error:
        return [table.Result(row, "failed", note=f"{type(error).__name__}: {error}")]


def main() -> None:
    """Measure, print and keep."""
    results = [result for row in chosen(sys.argv[1:]) for result in measured(row)]
    about = table.machine()
    print(f"{table.sentence(about)}\n\n{table.markdown(results)}\n")
    path = ROOT / "logs" / "bench" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table.as_json(results, about))
    print(f"each round: {path.relative_to(ROOT)}")
    if curves := [result for result in results if "sizes" in result.more]:
        growth.draw(curves, path.with_suffix(".png"))
        print(f"cost against size: {path.with_suffix('.png').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
