"""Figures that are means over queries, and how far a sample of the queries may lie from all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def send(table: Tensor, device: torch.device) -> Tensor:
    """A small tensor on another device, without waiting for what a GPU is doing: CUDA copies it aside first."""
    return table.to(device, non_blocking=True)


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error; the latter is None where every query was counted."""

    value: Tensor
    error: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Estimate:
        """The same change of figure and error, both of which it must scale alike."""
        return Estimate(change(self.value), None if self.error is None else change(self.error))

    def at(self, place: Tensor) -> Estimate:
        """The figure at one place of the last dimension, and its error; place: int64, of all but that dimension."""
        return self.map(lambda x: x.gather(-1, place[..., None])[..., 0])


@dataclass(frozen=True)
class Moments:
    """Sums over the queries of each group, from which means and their standard errors follow.

    sum, squares: float64 (heads, groups, width), of the values and of their squares. count: float64 (groups,), of the
    queries that were summed; population: likewise, of all there are. sampled: whether the former are a random sample.
    skewed: whether values are shares of which a few may be many times the rest.
    """

    sum: Tensor
    squares: Tensor
    count: Tensor
    population: Tensor
    sampled: bool
    skewed: bool = False

    @classmethod
    def of(cls, values: Tensor, population: int, sampled: bool, skewed: bool = False) -> Moments:
        """Of one group. values: (heads, queries, width)."""
        values = values.double()
        count, all_of_them = torch.tensor([[values.shape[1]], [population]], dtype=torch.float64)
        total, squares = (x.sum(1, keepdim=True) for x in (values, values.square()))
        return cls(total, squares, count, all_of_them, sampled, skewed)

    def estimate(self) -> Estimate:
        """(heads, groups, width); the error counts how much of the population was seen (without replacement).

        Most of a key's mass comes from a few queries, and a frame may have but a few of the sampled ones: where the
        telling ones were not drawn, a figure's own spread says nothing. So a spread counts as no smaller than the mean
        of its group's figures, nor than that figure's mean in all groups, nor, of skewed values, than the mean times
        what it lacks of 1. With fewer than two queries it is infinite.
        """
        if len(self.count) == 1 and self.count.device.type == "cpu":  # numbers: they need not be sent
            n, population = self.count[0], self.population[0]
            few = torch.full((1, 1), float(n) < 2, device=self.sum.device)
        else:
            n, population = (send(x, self.sum.device)[:, None] for x in (self.count, self.population))
            few = n < 2
        mean = self.sum / n
        if not self.sampled:
            return Estimate(mean)
        freedom = (n - 1).clamp(min=0)
        variance = (self.squares - self.sum * mean).clamp(min=0) / freedom
        variance = variance.maximum(variance.mean(-1, keepdim=True))
        if self.skewed:
            variance = variance.maximum((mean * (1 - mean)).square())
        if len(self.count) > 1:
            in_all = (variance * freedom).nansum(1, keepdim=True) / freedom.sum(0)
            variance = variance.maximum(in_all)
        error = (variance * ((1 - n / population).clamp(min=0) / n)).sqrt()
        return Estimate(mean, error.masked_fill(few, math.inf))


class Mean:
    """Collects `Moments`, a chunk of queries at a time."""

    def __init__(self, heads: int, width: int, population: Tensor, device: torch.device) -> None:
        self.population = population.double()
        self.sum, self.squares = torch.zeros(2, heads, len(population), width, dtype=torch.float64, device=device)
        self.count = torch.zeros(len(population), dtype=torch.float64, device=device)

    def add(self, values: Tensor, group: Tensor | None = None) -> None:
        """values: (heads, c, width); group: which group each query is in (c,), None if there is but one."""
        if group is None:
            self.sum[:, 0] += values.sum(1, dtype=torch.float64)
            self.squares[:, 0] += values.square().sum(1, dtype=torch.float64)
            self.count += values.shape[1]
            return
        values = values.double()
        self.sum.index_add_(1, group, values)
        self.squares.index_add_(1, group, values.square())
        self.count.index_add_(0, group, torch.ones_like(group, dtype=torch.float64))

    def add_sums(self, count: Tensor | int, total: Tensor, squares: Tensor | None = None) -> None:
        """Values that were summed elsewhere; without their squares, there is no error to estimate.

        count: (groups,), or of each. total, squares: (heads, groups, width).
        """
        self.count += count if isinstance(count, int) else send(count, self.count.device)
        self.sum += total
        if squares is not None:
            self.squares += squares

    def moments(self, sampled: bool) -> Moments:
        return Moments(self.sum, self.squares, self.count, self.population, sampled)

    def estimate(self, sampled: bool) -> Estimate:
        return self.moments(sampled).estimate()
