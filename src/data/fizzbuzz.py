"""FizzBuzz data: numbers as binary digits, and the four possible answers.

Letters: N numbers, D binary digits.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from src.kindling.data import BaseData, Split
from src.kindling.files.csv_columns import columns

WORDS = ("", "fizz", "buzz", "fizzbuzz")  # by class; the answer of class 0 is the number itself
GAME = range(1, 101)  # the game to play: the test numbers, and the default of predict


def encode(numbers: Tensor, num_digits: int) -> Tensor:
    """Return the binary digits of numbers [N] as floats [N, D], least significant first."""
    return (numbers[:, None] >> torch.arange(num_digits) & 1).float()


def decode(digits: Tensor) -> Tensor:
    """Return the numbers [N] with these binary digits [N, D]; the inverse of `encode`."""
    return (digits.long() << torch.arange(digits.shape[1])).sum(dim=1)


def fizzbuzz(numbers: Tensor) -> Tensor:
    """Return the class of each number: 0 number, 1 fizz (3), 2 buzz (5), 3 fizzbuzz (15); [N]."""
    return (numbers % 3 == 0).long() + 2 * (numbers % 5 == 0).long()


def word(number: int, answer: int) -> str:
    """Return the answer for a number, given its class."""
    return WORDS[answer] or str(number)


class FizzBuzzData(BaseData):
    """All numbers of `num_digits` binary digits: those above 100 for training, 1..100 for testing.

    Each input is the number's binary digits, least significant first; the target is one of four
    classes. With num_digits=10, 105 = 1 + 8 + 32 + 64 becomes

        inputs   1 0 0 1 0 1 1 0 0 0
        target   3, "fizzbuzz": 105 is divisible by 3 and by 5

    and the model should answer 53 (inputs 1 0 1 0 1 1 0 0 0 0) with class 0, "53".

    Args:
        num_digits: D, binary digits per number; training numbers are 101 .. 2**D - 1.
        val_fraction: fraction of the training numbers held out for validation.
        train_fraction: fraction of the remaining numbers to train on, for learning curves.
        batch_size: numbers per batch.
        shuffle: whether to shuffle the training numbers each epoch; the tutorial does not.
        seed: determines which numbers are held out, and their order.
        folds: number of folds for cross-validation over the training and validation rows.
        fold: the fold to validate on, from 0.

    Raises:
        ValueError: the fractions leave no number to train on.

    Source: Joel Grus, "Fizz Buzz in Tensorflow" (2016), by way of the PyTorch tutorial.
    """

    target = "class"
    out_features = len(WORDS)
    class_names = ("number", *WORDS[1:])

    def __init__(
        self,
        num_digits: Annotated[int, Field(ge=7, le=24)] = 10,  # 7 digits reach past 100
        val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0,
        batch_size: PositiveInt = 128,
        shuffle: bool = True,
        seed: NonNegativeInt = 0,
        folds: Annotated[int, Field(ge=2)] | None = None,
        fold: NonNegativeInt = 0,
    ) -> None:
        super().__init__(batch_size, shuffle, seed, folds, fold)
        self.in_features = self.num_digits = num_digits
        self.val_fraction, self.train_fraction = val_fraction, train_fraction
        if not len(self._training_numbers()[0]):
            raise ValueError(
                f"val_fraction={val_fraction} and train_fraction={train_fraction} leave no number"
            )

    def _training_numbers(self) -> tuple[Tensor, Tensor]:
        numbers = torch.arange(GAME.stop, 2**self.num_digits)
        generator = torch.Generator().manual_seed(self.seed)
        held_out = round(len(numbers) * self.val_fraction)
        kept = round((len(numbers) - held_out) * self.train_fraction)
        order = torch.randperm(len(numbers), generator=generator)
        # Sorted, so that without shuffling the numbers come in ascending order, as in the tutorial.
        val = numbers[order[:held_out].sort().values]
        return numbers[order[held_out : held_out + kept].sort().values], val

    def splits(self) -> dict[str, Split]:
        """Return digits [N, D] and classes [N] of each split."""
        train, val = self._training_numbers()
        numbers = {"train": train, "val": val, "test": torch.tensor(GAME)}
        return {
            stage: (encode(n, self.num_digits), fizzbuzz(n))
            for stage, n in numbers.items()
            if len(n)
        }

    def prediction_inputs(
        self, numbers: int | float | str | list[Any] | None = None, file: str | None = None
    ) -> Tensor:
        """Return the digits [N, D] of `numbers` (15, [15, 300] or "1..1000"), by default 1..100.

        Raises:
            ValueError: not non-negative integers, or more digits than the model has.
        """
        if file is not None:
            requested: Any = [value for (value,) in columns(file, ["number"])]
        else:
            requested = GAME if numbers is None else numbers
        checked = [number for part in _parts(requested) for number in self._checked(part)]
        if not checked:
            raise ValueError("numbers= is empty; use a number, a list [15,300] or a range 1..1000")
        return encode(torch.tensor(checked), self.num_digits)

    def _checked(self, part: Sequence[float]) -> list[int]:
        """Return the numbers of a range or a sequence, which must fit the model's digits."""
        largest = 2**self.num_digits - 1
        if part and part[-1] > largest:  # before a long range is expanded
            raise ValueError(
                f"{part[-1]} needs more than the {self.num_digits} binary digits of this model;"
                f" the largest number is {largest}"
            )
        if part and (part[0] < 0 or part[0] != int(part[0])):
            raise ValueError(f"{part[0]} is not a non-negative integer")
        return [int(number) for number in part]

    def prediction_rows(self, inputs: Tensor, answers: Tensor) -> list[dict[str, Any]]:
        """Return rows of `number`, `answer`, the `true` word, and whether the answer is `right`."""
        numbers = decode(inputs)
        true = fizzbuzz(numbers)
        return [
            {"number": n, "answer": word(n, a), "true": word(n, t), "right": a == t}
            for n, a, t in zip(numbers.tolist(), answers.tolist(), true.tolist(), strict=True)
        ]

    def prediction_text(self, rows: list[dict[str, Any]]) -> str:
        """Format the game: ten answers per line, wrong ones in [brackets], and the number right."""
        answers = [row["answer"] if row["right"] else f"[{row['answer']}]" for row in rows]
        width = max(len(text) for text in answers)
        lines = [
            "  ".join(f"{text:>{width}}" for text in answers[start : start + 10])
            for start in range(0, len(answers), 10)
        ]
        wrong = [f"{row['number']} is {row['true']}" for row in rows if not row["right"]]
        if wrong:
            more = f" and {len(wrong) - 20} more" if len(wrong) > 20 else ""
            lines.append(f"wrong, in [brackets]: {', '.join(wrong[:20])}{more}")
        lines.append(f"{len(rows) - len(wrong)} of {len(rows)} right")
        return "\n".join(lines)


def _parts(requested: Any) -> list[Sequence[float]]:
    """Split the requested numbers into ranges and single numbers (sequences of length 1)."""
    if isinstance(requested, range):
        return [requested]
    if isinstance(requested, list):
        return [part for item in requested for part in _parts(item)]
    if isinstance(requested, str) and ".." in requested:
        first, _, last = requested.partition("..")
        if first.strip().isdecimal() and last.strip().isdecimal():
            return [range(int(first), int(last) + 1)]
    if isinstance(requested, int) and not isinstance(requested, bool):
        return [[requested]]
    if isinstance(requested, float) and math.isfinite(requested):
        return [[int(requested) if requested == int(requested) else requested]]
    raise ValueError(f"{requested!r} is not a number; use 15, a list [15,300] or a range 1..1000")
