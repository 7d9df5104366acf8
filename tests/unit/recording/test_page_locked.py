"""The pool of page-locked RAM, on a machine without a GPU: ordinary memory is locked, and each lock counted."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vdit_core.recording.store import page_locked
from vdit_core.recording.store.page_locked import PageLockedPool
from vdit_core.recording.store.preparation import Preparation

from .page_locking import Copy, System, lent_after

PAGE = 4096


@pytest.fixture
def system() -> System:
    return System()


@pytest.mark.parametrize("nbytes", [1, PAGE - 1, PAGE, PAGE + 1, 10**6, 2**22 + 8])
def test_a_buffer_is_as_large_as_is_asked_for_in_whole_pages(system, nbytes):
    pool = system.pool()
    buffer = pool.take(nbytes)
    assert (buffer.dtype, buffer.shape) == (torch.uint8, (nbytes,))
    assert list(system.locked.values()) == [-(-nbytes // PAGE) * PAGE] == [pool.held]
    buffer.fill_(7)
    assert int(buffer.sum()) == 7 * nbytes


def test_what_comes_back_is_lent_again_and_not_locked_again(system):
    pool = system.pool()
    for _ in range(5):  # runs
        buffers = [pool.take(10 * PAGE) for _ in range(3)]
        assert len({buffer.data_ptr() for buffer in buffers}) == 3
        assert pool.idle == 0
        del buffers
        assert pool.idle == 30 * PAGE
    assert system.locks == 3
    assert pool.trim() == 30 * PAGE
    assert system.locked == {}
    assert pool.held == 0


def test_a_view_keeps_its_buffer(system):
    pool = system.pool()
    view = pool.take(64 * PAGE)[PAGE : 2 * PAGE].view(torch.bfloat16).view(8, -1)
    view.fill_(3)
    other = pool.take(64 * PAGE)
    other.zero_()
    assert pool.trim() == 0
    assert bool((view == 3).all())
    del view
    assert pool.trim() == 64 * PAGE


def test_another_size_is_another_buffer(system):
    pool = system.pool()
    pool.take(PAGE)
    assert len(pool.take(2 * PAGE)) == 2 * PAGE
    assert sorted(system.locked.values()) == [PAGE, 2 * PAGE]


def test_a_buffer_is_not_lent_before_copies_are_done(system):
    pool, copy = system.pool(), Copy()
    buffer = pool.take(PAGE)
    address = buffer.data_ptr()
    pool.in_use([buffer[10:20], torch.zeros(3)], copy)
    del buffer
    second = pool.take(2 * PAGE)
    assert lent_after(copy, pool, PAGE).data_ptr() == address
    del second


def test_one_whose_copies_are_done_is_lent_before_one_whose_are_not(system):
    pool, copy = system.pool(), Copy()
    buffers = [pool.take(PAGE) for _ in range(2)]
    pool.in_use(buffers[:1], copy)
    free = buffers[1].data_ptr()
    del buffers
    assert pool.take(PAGE).data_ptr() == free
    copy.done.set()


def test_nothing_goes_back_to_the_system_before_its_copies_are_done(system):
    pool, copy = system.pool(), Copy()
    buffer = pool.take(PAGE)
    pool.in_use([buffer], copy)
    del buffer
    trimming = threading.Thread(target=pool.trim)
    trimming.start()
    trimming.join(0.2)
    assert len(system.locked) == 1
    copy.done.set()
    trimming.join(10)
    assert system.locked == {}


def test_idle_buffers_go_back_after_a_while_and_those_in_use_stay(system):
    pool = system.pool()
    kept, old = pool.take(PAGE), pool.take(2 * PAGE)
    del old
    assert pool.idle == 2 * PAGE
    system.now = 50.0
    new = pool.take(3 * PAGE)
    del new
    assert pool.idle == 5 * PAGE
    system.now = 65.0
    assert pool.trim(idle_for=60.0) == 2 * PAGE
    assert sorted(system.locked.values()) == [PAGE, 3 * PAGE]
    del kept


def test_a_thread_gives_back_what_is_idle_and_ends():
    system = System()
    pool = PageLockedPool(system.lock, system.unlock, system.by_torch, grace=0.05)
    pool.take(PAGE)
    keeper = pool._keeper
    keeper.join(10)
    assert system.locked == {}
    assert pool._keeper is None
    buffer = pool.take(PAGE)
    assert pool._keeper.is_alive()
    del buffer
    pool._keeper.join(10)


REFUSALS = [(("lock",), "not enough lockable memory", False), (("lock", "by_torch"), "no page-locked memory", True)]


@pytest.mark.parametrize(("refuse", "why", "told"), REFUSALS)
def test_where_nothing_can_be_locked_it_is_other_ram_and_said_once(caplog, refuse, why, told):
    system = System(refuse)
    pool = system.pool()
    with caplog.at_level(logging.WARNING):
        buffers = [pool.take(3 * PAGE + 1) for _ in range(4)]
    for n, buffer in enumerate(buffers):
        assert len(buffer) == 3 * PAGE + 1
        buffer.fill_(n)
    assert [int(buffer[-1]) for buffer in buffers] == [0, 1, 2, 3]
    assert [why in record.message for record in caplog.records] == [True] * told
    assert system.asked == 1
    del buffer, buffers
    assert pool.trim() == 16 * PAGE
    system.refuse = ()
    pool.take(PAGE)
    assert system.locks == 1


def test_what_cannot_be_unlocked_is_nobody_elses(caplog):
    """A GPU could write to it."""
    system = System(("unlock",))
    pool = system.pool()
    address = pool.take(PAGE).data_ptr()
    kept = len(page_locked._kept_for_good)
    with caplog.at_level(logging.WARNING):
        pool.trim()
    assert "could not be given back: busy" in caplog.text
    assert [buffer.address for buffer in page_locked._kept_for_good[kept:]] == [address]
    assert pool.take(PAGE).data_ptr() != address


def test_many_threads_never_share_a_buffer(system):
    pool, wrong = system.pool(), []

    def work(seed: int) -> None:
        for n in range(200):
            buffer = pool.take((1 + (n + seed) % 3) * PAGE)
            buffer.fill_(seed)
            if not bool((buffer == seed).all()):
                wrong.append(seed)
            del buffer
            if n % 50 == seed:
                pool.trim()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert system.most <= 8 * 3 * 3 * PAGE
    pool.trim()
    assert system.locked == {}


def test_a_destructor_may_give_back_while_the_pool_is_busy(system):
    """The cyclic collector runs anywhere, on the thread that holds the pool's lock too."""
    pool = system.pool()
    cycle = [pool.take(PAGE)]
    cycle.append(cycle)
    with pool._lock:
        del cycle
        gc.collect()
    assert pool.idle == PAGE


def test_the_interpreter_ends_without_errors():
    code = """
from vdit_core.recording.store.page_locked import PageLockedPool
pool = PageLockedPool(lambda a, n: 0, lambda a, t: 1 / 0, grace=0.01)
kept, idle = pool.take(10**7), pool.take(5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize(("count", "asked"), [(6, 6), (6, 2), (2, 6), (1, 1)])
def test_no_more_is_prepared_than_will_be_asked_for(system, count, asked):
    pool = system.pool()
    preparation = Preparation(pool, 5 * PAGE, count)
    buffers = [preparation.take() for _ in range(asked)]
    assert len({buffer.data_ptr() for buffer in buffers}) == asked
    preparation.close()
    assert system.locks <= max(count, asked)
    assert pool.held - pool.idle == asked * 5 * PAGE
    assert not preparation._thread.is_alive()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 32])
def test_threads_that_take_what_is_prepared_take_as_much_as_was_announced(system, count):
    system.delay = 0.005
    pool, taken = system.pool(), []
    preparation = Preparation(pool, PAGE, count)
    threads = [threading.Thread(target=lambda: taken.append(preparation.take())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    preparation.close()
    assert len({buffer.data_ptr() for buffer in taken}) == count
    assert system.locks == count


class Pool(RuleBasedStateMachine):
    """Whatever is taken, given and used in whatever order: each buffer is one's own, and the bytes add up."""

    def __init__(self) -> None:
        super().__init__()
        self.system = System()
        self.pool = self.system.pool()
        self.lent: list[tuple[torch.Tensor, int]] = []
        self.copies: list[Copy] = []
        self.marks = 0

    @rule(pages=st.integers(1, 3))
    def take(self, pages: int) -> None:
        for copy in self.copies:
            copy.done.set()
        self.copies.clear()
        self.marks = (self.marks + 1) % 256
        buffer = self.pool.take(pages * PAGE)
        buffer.fill_(self.marks)
        self.lent.append((buffer, self.marks))

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        self.lent.pop(data.draw(st.integers(0, len(self.lent) - 1)))

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        self.copies.append(Copy())
        buffer, _ = self.lent[data.draw(st.integers(0, len(self.lent) - 1))]
        self.pool.in_use([buffer], self.copies[-1])

    @rule(after=st.floats(0, 9))
    def trim(self, after: float) -> None:
        for copy in self.copies:
            copy.done.set()
        self.copies.clear()
        self.system.now += 3
        self.pool.trim(after)

    @invariant()
    def adds_up(self) -> None:
        assert all(bool((buffer == mark).all()) for buffer, mark in self.lent)
        assert self.pool.held == sum(self.system.locked.values())
        assert self.pool.held - self.pool.idle == sum(len(buffer) for buffer, _ in self.lent)


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
