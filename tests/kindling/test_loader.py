"""TensorLoader against torch's DataLoader; orders against what (seed, epoch, rank) promise."""

import itertools
import math
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from src.kindling import data as kindling_data
from src.kindling import loader
from src.kindling.loader import EpochSampler, TensorLoader

examples = settings(max_examples=80, derandomize=True, deadline=None)
ROWS, BATCHES = st.integers(1, 40), st.integers(1, 17)
SEEDS = [0, 1, 2, 3, 1000, 2**31 - 1, 2**31, 2**32 - 1]


def tensors(rows):
    """Features [N, 3] and classes [N]; row i says i in both."""
    numbers = torch.arange(rows)
    return numbers[:, None] * torch.tensor([1.0, 10.0, 100.0]), numbers


def seen(loader):
    """The row numbers of an epoch in their order, batch by batch."""
    return [classes.tolist() for _, classes in loader]


def flat(batches):
    return list(itertools.chain.from_iterable(batches))


def order(rows, **options):
    """The rows of one epoch, in order."""
    epoch = options.pop("epoch", 0)
    sampler = EpochSampler(rows, **options)
    sampler.set_epoch(epoch)
    return sampler.order().tolist()


# Batches ----------------------------------------------------------------------------------------


@examples
@given(rows=ROWS, batch_size=BATCHES)
def test_unshuffled_batches_equal_those_of_a_data_loader(rows, batch_size):
    loader = TensorLoader(tensors(rows), batch_size)
    reference = DataLoader(TensorDataset(*tensors(rows)), batch_size=batch_size)
    batches, expected = list(loader), list(reference)
    assert len(loader) == len(reference) == len(batches)
    for batch, other in zip(batches, expected, strict=True):
        assert isinstance(batch, tuple)
        assert all(map(torch.equal, batch, other))


@examples
@given(rows=ROWS, batch_size=BATCHES, epoch=st.integers(0, 5))
def test_a_shuffled_epoch_has_each_row_once_and_whole(rows, batch_size, epoch):
    sampler = EpochSampler(rows, shuffle=True, seed=3)
    loader = TensorLoader(tensors(rows), batch_size, sampler=sampler)
    sampler.set_epoch(epoch)
    batches = list(loader)
    features, classes = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert sorted(classes.tolist()) == list(range(rows))
    assert torch.equal(features, tensors(rows)[0][classes])
    assert [len(classes) for _, classes in batches[:-1]] == [batch_size] * (len(loader) - 1)


def test_each_epoch_is_a_new_pass():
    loader = TensorLoader(tensors(7), 3)
    assert seen(loader) == seen(loader) == [[0, 1, 2], [3, 4, 5], [6]]


def test_takes_any_number_of_tensors():
    assert [[part.tolist() for part in batch] for batch in TensorLoader(tensors(3)[1:], 2)] == [
        [[0, 1]],
        [[2]],
    ]


@pytest.mark.parametrize("lengths", [(3, 4), (4, 3), (3, 3, 0)])
def test_refuses_tensors_of_different_lengths(lengths):
    with pytest.raises(ValueError, match="rows differ") as refusal:
        TensorLoader([torch.zeros(n) for n in lengths], 2)
    assert str(list(lengths)) in str(refusal.value)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 2), (6, 1, 1), (6, 0)])
def test_rows_of_any_shape_come_as_indexing_gives_them(shape):
    rows = torch.arange(math.prod(shape)).reshape(shape)
    sampler = EpochSampler(6, shuffle=True, seed=2)
    batches = [batch for (batch,) in TensorLoader([rows], 4, sampler=sampler)]
    expected = rows[sampler.order()].split(4)
    assert [batch.shape for batch in batches] == [batch.shape for batch in expected]
    assert all(map(torch.equal, batches, expected))
    assert all(batch.is_contiguous() for batch in batches)


# Blocks and devices -----------------------------------------------------------------------------


@examples
@given(
    rows=ROWS,
    batch_size=BATCHES,
    shuffle=st.booleans(),
    block=st.integers(1, 400),  # bytes; a row has 20
    data=st.data(),
)
def test_the_size_of_a_block_changes_no_batch(rows, batch_size, shuffle, block, data):
    def batches(skip):
        sampler = EpochSampler(rows, shuffle=shuffle, seed=1)
        loader = TensorLoader(tensors(rows), batch_size, sampler=sampler)
        loader.load_state_dict({"given": skip})
        return seen(loader)

    skip = data.draw(st.integers(0, -(-rows // batch_size)))
    expected = batches(skip)  # in one block
    with mock.patch.object(loader, "BLOCK_BYTES", block):
        assert batches(skip) == expected


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_large_epoch_is_never_in_memory_at_once(shuffle):
    rows, features = 1000, torch.zeros(1000, 3)
    sampler = EpochSampler(rows, shuffle=shuffle)
    with mock.patch.object(loader, "BLOCK_BYTES", 12 * 50):
        batches = list(TensorLoader([features], 10, sampler=sampler))
    sizes = {batch.untyped_storage().nbytes() for (batch,) in batches}
    # Unshuffled rows are not copied at all: their batches are parts of the data.
    assert sizes == {12 * 50 if shuffle else 12 * rows}


def test_batches_come_on_the_device_that_was_asked_for():
    meta = torch.device("meta")  # shapes without values, but a device as any other
    for shuffle in (False, True):
        sampler = EpochSampler(5, shuffle=shuffle)
        batches = list(TensorLoader(tensors(5), 2, sampler=sampler, device=meta))
        assert [len(classes) for _, classes in batches] == [2, 2, 1]
        assert {part.device for batch in batches for part in batch} == {meta}


@pytest.mark.parametrize(("free", "where"), [(0, "cpu"), (959, "cpu"), (960, "meta")])
def test_rows_that_fit_twice_move_to_the_device_once(free, where, build, monkeypatch):
    monkeypatch.setattr(kindling_data, "free_memory", lambda device: free)
    data = build("model=line", "data.rows=40").data  # 3 numbers a row: 480 bytes
    meta = torch.device("meta")
    strategy = SimpleNamespace(root_device=meta)
    data.trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1)
    loader = data.train_dataloader()
    assert loader.tensors[0].device.type == where
    assert data.train_dataloader().tensors[0] is loader.tensors[0]


# Orders -----------------------------------------------------------------------------------------


def test_the_order_depends_on_seed_and_epoch_alone():
    expected = order(50, shuffle=True, seed=5, epoch=3)
    sampler = EpochSampler(50, shuffle=True, seed=5)
    for epoch in (9, 0, 3):  # whatever epochs went before
        sampler.set_epoch(epoch)
        torch.manual_seed(epoch)  # and whatever torch's own generator is at
        list(sampler)
    before = torch.random.get_rng_state()
    assert list(sampler) == list(sampler) == expected
    assert torch.equal(torch.random.get_rng_state(), before)  # which it leaves alone


def test_epochs_have_different_orders():
    orders = [tuple(order(50, shuffle=True, seed=5, epoch=epoch)) for epoch in range(200)]
    assert len(set(orders)) == 200


def test_seeds_have_different_orders():
    orders = {seed: tuple(order(50, shuffle=True, seed=seed)) for seed in SEEDS}
    assert len(set(orders.values())) == len(SEEDS)


def test_no_two_pairs_of_seed_and_epoch_share_an_order():
    pairs = list(itertools.product(range(20), range(20)))  # 1 and 2 is not 2 and 1
    orders = {tuple(order(50, shuffle=True, seed=seed, epoch=epoch)) for seed, epoch in pairs}
    assert len(orders) == len(pairs)


def test_every_position_gets_every_row_equally_often():
    orders = torch.tensor([order(5, shuffle=True, seed=1, epoch=epoch) for epoch in range(2000)])
    counts = torch.stack([(orders == row).sum(dim=0) for row in range(5)])
    # Binomial with n = 2000, p = 1/5: the deviation is 17.9, and five of them are allowed.
    assert (counts - 400).abs().max() < 90


def test_unshuffled_order_is_the_same_in_every_epoch():
    assert order(6) == order(6, seed=4, epoch=7) == [0, 1, 2, 3, 4, 5]


# Ranks ------------------------------------------------------------------------------------------

WORLDS = st.integers(1, 6)


def shares(rows, world_size, **options):
    return [order(rows, rank=rank, world_size=world_size, **options) for rank in range(world_size)]


@examples
@given(rows=ROWS, world_size=WORLDS, shuffle=st.booleans())
def test_without_padding_the_ranks_partition_the_rows(rows, world_size, shuffle):
    parts = shares(rows, world_size, shuffle=shuffle, epoch=2)
    assert sorted(flat(parts)) == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@examples
@example(rows=1, world_size=3, shuffle=False)
@given(rows=ROWS, world_size=WORLDS, shuffle=st.booleans())
def test_with_padding_each_rank_has_equally_many_and_no_row_is_left_out(rows, world_size, shuffle):
    parts = shares(rows, world_size, shuffle=shuffle, pad=True, epoch=2)
    assert {len(part) for part in parts} == {-(-rows // world_size)}
    assert set(flat(parts)) == set(range(rows))


@examples
@example(rows=1, world_size=2, pad=False, batch_size=4)
@example(rows=1, world_size=3, pad=True, batch_size=4)
@given(rows=ROWS, world_size=WORLDS, pad=st.booleans(), batch_size=BATCHES)
def test_each_rank_gets_the_batches_of_its_own_share(rows, world_size, pad, batch_size):
    for rank, share in enumerate(shares(rows, world_size, pad=pad)):
        sampler = EpochSampler(rows, rank=rank, world_size=world_size, pad=pad)
        loader = TensorLoader(tensors(rows), batch_size, sampler=sampler)
        assert len(sampler) == len(share)
        batches = seen(loader)
        assert flat(batches) == share
        assert len(batches) == len(loader)


def test_ranks_take_turns_in_one_common_order():
    whole = order(10, shuffle=True, seed=2)
    assert shares(10, 2, shuffle=True, seed=2) == [whole[::2], whole[1::2]]


# Resuming ---------------------------------------------------------------------------------------


@examples
@given(rows=ROWS, batch_size=BATCHES, world_size=WORLDS, data=st.data())
def test_continues_with_exactly_the_batches_that_remain(rows, batch_size, world_size, data):
    def fresh():
        sampler = EpochSampler(rows, shuffle=True, seed=1, world_size=world_size, pad=True)
        sampler.set_epoch(4)
        return TensorLoader(tensors(rows), batch_size, sampler=sampler)

    whole = seen(fresh())
    taken = data.draw(st.integers(0, len(whole)))
    interrupted = fresh()
    iterator = iter(interrupted)
    assert seen(itertools.islice(iterator, taken)) == whole[:taken]

    resumed = fresh()
    resumed.load_state_dict(interrupted.state_dict())
    # After a whole epoch the next one is due, and it is a whole one.
    assert seen(resumed) == (whole[taken:] if taken < len(whole) else whole)
    assert seen(resumed) == whole


def test_a_resumed_epoch_has_its_batches_at_the_same_place_in_memory(monkeypatch):
    monkeypatch.setattr(loader, "BLOCK_BYTES", 3 * 4 * 2)  # blocks of three batches of two
    numbers = torch.arange(20.0)
    sampler = EpochSampler(20, shuffle=True)
    whole = [batch.storage_offset() for [batch] in TensorLoader([numbers], 2, sampler=sampler)]
    resumed = TensorLoader([numbers], 2, sampler=sampler)
    resumed.load_state_dict({"given": 4})  # in the middle of the second block
    assert [batch.storage_offset() for [batch] in resumed] == whole[4:]


def test_a_resumed_epoch_that_is_interrupted_again_counts_from_its_start():
    first = TensorLoader(tensors(10), 2)
    iterator = iter(first)
    next(iterator)
    second = TensorLoader(tensors(10), 2)
    second.load_state_dict(first.state_dict())
    iterator = iter(second)
    assert next(iterator)[1].tolist() == [2, 3]
    third = TensorLoader(tensors(10), 2)
    third.load_state_dict(second.state_dict())
    assert seen(third) == [[4, 5], [6, 7], [8, 9]]


def test_an_epoch_that_is_broken_off_leaves_the_next_one_whole():
    loader = TensorLoader(tensors(6), 2)
    next(iter(loader))
    assert seen(loader) == [[0, 1], [2, 3], [4, 5]]


def test_a_state_of_an_older_version_counts_groups_of_batches():
    loader = TensorLoader(tensors(7), 2)  # 4 batches
    for items, rest in ((1, [[6]]), (2, [[0, 1], [2, 3], [4, 5], [6]])):
        loader.load_state_dict({"given": items, "group": 3})
        assert seen(loader) == rest


def test_its_state_is_plain_data():
    loader = TensorLoader(tensors(6), 2)
    next(iter(loader))
    state = loader.state_dict()
    assert {type(key) for key in state} == {str}
    assert {type(value) for value in state.values()} == {int}


def test_an_epoch_that_is_set_after_iter_and_before_the_first_batch_counts():
    sampler = EpochSampler(30, shuffle=True, seed=1)
    iterator = iter(TensorLoader(tensors(30), 30, sampler=sampler))
    sampler.set_epoch(5)
    assert next(iterator)[1].tolist() == order(30, shuffle=True, seed=1, epoch=5)


# In torch's DataLoader ----------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1])
def test_the_sampler_works_in_a_data_loader(rank):
    sampler = EpochSampler(11, shuffle=True, seed=3, rank=rank, world_size=2)
    loader = DataLoader(TensorDataset(*tensors(11)), batch_size=4, sampler=sampler)
    ours = TensorLoader(tensors(11), 4, sampler=sampler)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        assert seen(loader) == seen(ours)
        assert len(loader) == len(ours) == len(seen(ours))


def test_a_sampler_of_fewer_rows_ends_the_epoch_at_its_last():
    loader = TensorLoader([torch.arange(10.0)[:, None]], 4, sampler=EpochSampler(6))
    assert [batch[:, 0].tolist() for (batch,) in loader] == [[0, 1, 2, 3], [4, 5]]
