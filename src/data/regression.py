"""Shared by the two regression data sets: memory checks, prediction inputs and their display.

Letters: N rows, D features, C outputs.
"""

from typing import Any

import torch
from torch import Tensor

from src.kindling.data import BaseData
from src.kindling.files.csv_columns import columns
from src.kindling.process.memory import total_memory

BYTES = 4  # of a float32
SHOWN = 10  # rows printed by predict; a file gets all of them


class RegressionData(BaseData):
    """Data sets that map features [N, D] to values [N, C]."""

    target = "value"

    def _check_memory(self, rows: int, width: int) -> None:
        """Refuse sizes that do not fit in memory, before the rows are generated.

        Args:
            rows: N, over all splits.
            width: numbers per row: features, hidden units of a teacher, and outputs.

        Raises:
            ValueError: stating how much memory is needed.
        """
        needed, present = BYTES * (rows + width) * width, total_memory()
        if needed > present:
            raise ValueError(
                f"{rows:,} rows of {width:,} numbers take {needed / 1e9:,.0f} GB of memory;"
                f" this machine has {present / 1e9:,.0f} GB"
            )

    def prediction_inputs(self, features: Any = None, file: str | None = None) -> Tensor:
        """Return the given features [N, D], columns `x1 .. xD` of a CSV file, or the test rows.

        Raises:
            ValueError: the features are not a table of D columns of finite numbers, or the file
                does not match.
        """
        if file is not None:
            features = columns(file, [f"x{i + 1}" for i in range(self.in_features)])
        if features is not None:
            return self._table(features)
        split = self.split("test") or self.split("train")
        assert split is not None
        return split[0]

    def _table(self, features: Any) -> Tensor:
        rows = features if isinstance(features, list) else [features]
        rows = rows if rows and isinstance(rows[0], list) else [rows]
        try:
            table = torch.tensor(rows, dtype=torch.float32)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"features={features}: must be a table of numbers") from None
        if table.ndim != 2 or table.shape[1] != self.in_features:
            width = table.shape[-1]
            raise ValueError(
                f"features= has rows of {width} numbers; this model needs {self.in_features}"
            )
        if not table.isfinite().all():
            raise ValueError("features= has a number that is not finite, or too large for a float")
        return table

    def prediction_rows(self, inputs: Tensor, answers: Tensor) -> list[dict[str, Any]]:
        """Return rows of `x1 .. xD`, the predicted `y1 .. yC`, and `true1 .. trueC` if known."""
        split = self.split("test") or self.split("train")
        true = split[1] if split is not None and inputs is split[0] else None
        rows = []
        for i, (x, y) in enumerate(zip(inputs.tolist(), answers.tolist(), strict=True)):
            row = {f"x{j + 1}": value for j, value in enumerate(x)}
            row |= {f"y{j + 1}": value for j, value in enumerate(y)}
            if true is not None:
                row |= {f"true{j + 1}": value for j, value in enumerate(true[i].tolist())}
            rows.append(row)
        return rows

    def prediction_text(self, rows: list[dict[str, Any]]) -> str:
        """Format the first rows and a few columns as a table, and the error over all rows."""
        shown = [name for name in ("x1", "x2", "y1", "true1", "y2", "true2") if name in rows[0]]
        lines = ["  ".join(f"{name:>9}" for name in shown)]
        lines += ["  ".join(f"{row[name]:9.4f}" for name in shown) for row in rows[:SHOWN]]
        if len(rows) > SHOWN or len(rows[0]) > len(shown):
            lines.append(
                f"{min(len(rows), SHOWN)} of {len(rows)} rows, {len(shown)} of {len(rows[0])}"
                " columns; src.predict output=FILE.csv writes all"
            )
        if "true1" in rows[0]:
            errors = torch.tensor(
                [
                    [row[name] - row["true" + name[1:]] for name in row if name[0] == "y"]
                    for row in rows
                ]
            )
            lines.append(
                f"root mean squared error over all rows: {errors.square().mean().sqrt():.4g}"
            )
        return "\n".join(lines)
