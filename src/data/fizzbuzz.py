"""Numbers as binary digits, and the four answers of FizzBuzz.

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

WORDS = ("", "fizz", "buzz", "fizzbuzz")  # class 0 says the number itself
GAME = range(1, 101)  # the game that is played at the end, and the test numbers


def encode(numbers: Tensor, num_digits: int) -> Tensor:
    """Return the binary digits of numbers [N] as floats [N, D], least significant first."""
    return (numbers[:, None] >> torch.arange(num_digits) & 1).float()


def decode(digits: Tensor) -> Tensor:
    """Return the numbers [N] whose binary digits [N, D] are given; the inverse of `encode`."""
    return (digits.long() << torch.arange(digits.shape[1])).sum(dim=1)


def fizzbuzz(numbers: Tensor) -> Tensor:
    """Return the class of each number: 0 number, 1 fizz (3), 2 buzz (5), 3 fizzbuzz (15); [N]."""
    return (numbers % 3 == 0).long() + 2 * (numbers % 5 == 0).long()


def word(number: int, answer: int) -> str:
    """Return what a player says for a number, given its class."""
    return WORDS[answer] or str(number)


class FizzBuzzData(BaseData):
    """All numbers of `num_digits` digits: above 100 to train on, 1..100 to play.

    A number becomes its binary digits, least significant first, and one of four classes. With
    num_digits=10, 105 = 1 + 8 + 32 + 64 becomes

        inputs   1 0 0 1 0 1 1 0 0 0
        target   3, "fizzbuzz": 105 is divisible by 3 and by 5

    and the model's answer to 53 (inputs 1 0 1 0 1 1 0 0 0 0) should be class 0, "53".

    Args:
        num_digits: D, binary digits of a number; training numbers are 101 .. 2**D - 1.
        val_fraction: share of the training numbers that is held out for validation.
        train_fraction: share of what is left that is trained on, for learning curves.
        batch_size: numbers per batch.
        shuffle: whether training numbers are shuffled each epoch; the tutorial keeps their order.
        seed: which numbers are held out, and the orders, follow from it.
        folds: for cross-validation, the number of parts of the training and validation rows.
        fold: the part (from 0) that is validated on.

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
        self.save_hyperparameters(logger=False)
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
        # Sorted, so that without shuffling the numbers come in their order as in the tutorial.
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
            ValueError: not whole numbers from 0, or more digits than the model has.
        """
        if file is not None:
            asked: Any = [value for (value,) in columns(file, ["number"])]
        else:
            asked = GAME if numbers is None else numbers
        checked = [number for part in _parts(asked) for number in self._checked(part)]
        if not checked:
            raise ValueError("numbers= is empty: give a number, a list [15,300] or a range 1..1000")
        return encode(torch.tensor(checked), self.num_digits)

    def _checked(self, part: Sequence[float]) -> list[int]:
        """Return a number, or the numbers of a range, that the model has digits for."""
        largest = 2**self.num_digits - 1
        if part and part[-1] > largest:  # said before a long range is made
            raise ValueError(
                f"{part[-1]} needs more than the {self.num_digits} binary digits of this model:"
                f" the largest number that it takes is {largest}"
            )
        if part and (part[0] < 0 or part[0] != int(part[0])):
            raise ValueError(f"{part[0]} is no whole number from 0")
        return [int(number) for number in part]

    def prediction_rows(self, inputs: Tensor, answers: Tensor) -> list[dict[str, Any]]:
        """Return rows of `number`, the `answer`, the `true` word and whether it is `right`."""
        numbers = decode(inputs)
        true = fizzbuzz(numbers)
        return [
            {"number": n, "answer": word(n, a), "true": word(n, t), "right": a == t}
            for n, a, t in zip(numbers.tolist(), answers.tolist(), true.tolist(), strict=True)
        ]

    def prediction_text(self, rows: list[dict[str, Any]]) -> str:
        """Return the game, ten answers per line, the wrong ones in [brackets], and the count."""
        said = [row["answer"] if row["right"] else f"[{row['answer']}]" for row in rows]
        width = max(len(text) for text in said)
        lines = [
            "  ".join(f"{text:>{width}}" for text in said[start : start + 10])
            for start in range(0, len(said), 10)
        ]
        wrong = [f"{row['number']} is {row['true']}" for row in rows if not row["right"]]
        if wrong:
            more = f" and {len(wrong) - 20} more" if len(wrong) > 20 else ""
            lines.append(f"wrong, in [brackets]: {', '.join(wrong[:20])}{more}")
        lines.append(f"{len(rows) - len(wrong)} of {len(rows)} right")
        return "\n".join(lines)


def _parts(asked: Any) -> list[Sequence[float]]:
    """Split what was asked into ranges, and numbers (each as a sequence of one)."""
    if isinstance(asked, range):
        return [asked]
    if isinstance(asked, list):
        return [part for item in asked for part in _parts(item)]
    if isinstance(asked, str) and ".." in asked:
        first, _, last = asked.partition("..")
        if first.strip().isdecimal() and last.strip().isdecimal():
            return [range(int(first), int(last) + 1)]
    if isinstance(asked, int) and not isinstance(asked, bool):
        return [[asked]]
    if isinstance(asked, float) and math.isfinite(asked):
        return [[int(asked) if asked == int(asked) else asked]]
    raise ValueError(f"{asked!r} is no number: give 15, a list [15,300] or a range 1..1000")
