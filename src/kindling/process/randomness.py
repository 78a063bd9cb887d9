"""Random numbers that follow from (seed, step, rank), so that a resumed run repeats them.

A generator that runs on from step to step has a state that a checkpoint would have to hold. Here
each step reseeds the generators instead: dropout, noise and augmentation are the same in a run that
was stopped and resumed, and with any number of steps per call.
"""

import random
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch

MASK = 2**64 - 1
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
OBJECTS, ENTRIES = 1000, 50  # how many are searched for generators, and of one list or object


class Randomness:
    """The global generators of one process.

    Args:
        seed: of the run.
        rank: the index of the process; ranks draw different numbers.
        device: the device of the network.
    """

    def __init__(self, seed: int, rank: int, device: torch.device) -> None:
        self._stream = splitmix64(splitmix64(seed) + rank)
        self._on = {"cuda": torch.cuda.manual_seed, "mps": torch.mps.manual_seed}.get(device.type)

    def seed_fetch(self, step: int) -> None:
        """Seed all generators before a batch is fetched: augmentation may use any of them; 8 us."""
        seed_all(splitmix64(self._stream + step) >> 32)

    def seed_batch(self, step: int, part: int) -> None:
        """Seed torch's generators for the `part`-th batch of an optimizer step; 2 us."""
        number = splitmix64(self._stream + step + (part + 1 << 40)) >> 32  # the CPU takes 32 bits
        torch.default_generator.manual_seed(number)
        if self._on is not None:
            self._on(number)  # only sets a number, without synchronizing


def seed_all(number: int) -> None:
    """Seed Python's, NumPy's and torch's CPU generator with 32 bits; 8 us."""
    random.seed(number)
    np.random.seed(number)
    torch.default_generator.manual_seed(number)


def seed_each(generators: list[Any], number: int) -> None:
    """Seed generators of any kind with 64 bits; 20 us for one of NumPy's, else 1."""
    for place, generator in enumerate(generators):
        bits = splitmix64(number + place)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(bits >> 1)
        elif isinstance(generator, np.random.Generator):
            kind: Any = type(generator.bit_generator)
            generator.bit_generator.state = kind(bits).state
        else:
            generator.seed(bits >> 32)


def state_of(generator: Any) -> Any:
    """Return the state of a generator of any kind."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    is_pythons = isinstance(generator, random.Random)
    return generator.getstate() if is_pythons else generator.get_state()


def set_state(generator: Any, state: Any) -> None:
    """Restore the state of a generator of any kind."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


@contextmanager
def isolated(bits: np.random.MT19937) -> Iterator[None]:
    """Restore the CPU generators afterwards, so that training is not affected.

    NumPy gets another generator meanwhile, since copying its state back and forth takes 120 us; a
    normal number that it has drawn in advance is lost.

    Args:
        bits: that generator.
    """
    numpy: Any = np.random  # whose stubs lack these two functions
    states = random.getstate(), numpy.get_bit_generator(), torch.get_rng_state()
    numpy.set_bit_generator(bits)
    try:
        yield
    finally:
        random.setstate(states[0])
        numpy.set_bit_generator(states[1])
        torch.set_rng_state(states[2])


def generators_of(*parts: Any) -> list[Any]:
    """Return the generators that objects keep, or their parts do, such as a subset's transforms."""
    queue, seen, found = deque(parts), set[int](), []
    while queue and len(seen) < OBJECTS:
        part = queue.popleft()
        if id(part) not in seen:
            seen.add(id(part))
            found += [part] if isinstance(part, GENERATORS) else []
            queue += islice(_parts_of(part), ENTRIES)
    return found


def _parts_of(part: Any) -> Iterable[Any]:
    if isinstance(part, list | tuple | dict):
        return part.values() if isinstance(part, dict) else part
    if isinstance(part, GENERATORS) or type(part).__module__.startswith("lightning"):
        return ()  # a Trainer reaches everything
    attributes: dict[str, Any] = getattr(part, "__dict__", {})
    return attributes.values()


def splitmix64(number: int) -> int:
    """Mix a number into 64 bits that look random, even for consecutive numbers.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
    """
    number = (number * 0x9E3779B97F4A7C15) & MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK
    return number ^ (number >> 31)
