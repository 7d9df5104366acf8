from __future__ import annotations

import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdit_core.call import Chain, Interceptor, ModelSignature, Run, TokenGrid


class Noted(Interceptor):
    """Writes down what happens to it, and adds its number to the output."""

    def __init__(self, number: int, diary: list[str], fails_in: str = "") -> None:
        self.number, self.diary, self.fails_in = number, diary, fails_in

    def begin(self, run: Run) -> None:
        self.diary.append(f"begin {self.number}")
        if self.fails_in == "begin":
            raise ValueError("does not fit")

    def __call__(self, call, proceed):
        self.diary.append(f"call {self.number}")
        if self.fails_in == "call":
            raise ValueError("broke")
        return proceed(call) + self.number

    def end(self, completed: bool) -> None:
        self.diary.append(f"end {self.number} {completed}")


def test_an_empty_chain_is_the_backend_bit_for_bit(host):
    stock = host().run(1)
    assert all(torch.equal(stock[key], value) for key, value in host().run(1, Interceptor()).items())


def test_the_first_interceptor_is_the_outermost(host):
    diary: list[str] = []
    host(layers=1, sigmas=(1.0,), branches=("cond",)).run(0, Noted(1, diary), Noted(2, diary))
    assert diary == ["begin 1", "begin 2", "call 1", "call 2", "end 2 True", "end 1 True"]


@pytest.mark.parametrize("where", ["begin", "call"])
def test_every_interceptor_that_began_ends_when_one_fails(host, where):
    diary: list[str] = []
    with pytest.raises(ValueError, match=r"does not fit|broke"):
        host().run(0, Noted(1, diary), Noted(2, diary, fails_in=where), Noted(3, diary))
    begun = {line.split()[1] for line in diary if line.startswith("begin")}
    ended = [line.split() for line in diary if line.startswith("end")]
    assert {number for _, number, _ in ended} == begun
    assert all(completed == "False" for *_, completed in ended)


def test_what_an_end_raises_keeps_nothing_alive_and_all_end():
    """A failed write of a recording: its GiB go with the error, not with some later garbage collection."""

    class Fails(Noted):
        def end(self, completed):
            super().end(completed)
            raise OSError("disk full")

    diary: list[str] = []
    chain = Chain([Noted(1, diary), Fails(2, diary), Noted(3, diary)])
    gone = weakref.ref(chain.interceptors[1])
    chain.begin(Run(ModelSignature(1, 1, 1), TokenGrid(1, 1, 1), (1.0,), ("cond",), 1, torch.float32))
    gc.disable()
    try:
        with pytest.raises(OSError, match="disk full"):
            chain.end(True)
        del chain
        assert gone() is None
    finally:
        gc.enable()
    assert diary[3:] == ["end 3 True", "end 2 True", "end 1 True"]


def test_an_interceptor_that_does_not_want_a_call_is_not_asked(host):
    class Picky(Noted):
        def wants(self, site):
            return site.layer == 1

    diary: list[str] = []
    host(branches=("cond",), sigmas=(1.0,)).run(0, Picky(1, diary))
    assert diary.count("call 1") == 1
    assert not Chain([]).wants(host().sites()[0])


@given(st.lists(st.integers(1, 1000).map(lambda n: n / 1000), min_size=1, max_size=30, unique=True), st.data())
def test_a_level_falls_in_the_step_that_starts_at_or_above_it(levels, data):
    levels = sorted(levels, reverse=True)
    run = Run(ModelSignature(1, 1, 1), TokenGrid(1, 1, 1), tuple(levels), ("cond",), 1, torch.float32)
    assert [run.step_of(level) for level in levels] == list(range(len(levels)))
    sigma = data.draw(st.floats(levels[-1], levels[0]))
    step = run.step_of(sigma)
    assert levels[step] >= sigma * (1 - 1e-5)
    assert step + 1 == len(levels) or levels[step + 1] < sigma * (1 - 1e-5)


def test_tokens_outside_the_grid_count():
    assert TokenGrid(21, 30, 52).tokens == 32_760
    assert TokenGrid(2, 3, 4, prefix=5, suffix=6).tokens == 35
