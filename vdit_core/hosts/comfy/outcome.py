"""How a sampling run ended, for one interceptor of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ...call import Run
from ...outcome import Verdict, failed


@dataclass(frozen=True)
class Outcome:
    """How a sampling run ended.

    samples: what the sampler returned; None after an error or interrupt. run: what the first model call showed.
    stock: why the run was left to the stock model, or None. missed: why self-attention never came by, or None.
    caveat: what is not as the interceptor needs it, or None. error: what the interceptor itself raised, or None.
    sampled_by: the graph's node that sampled, if a graph did.
    """

    samples: Tensor | None
    run: Run | None
    stock: str | None = None
    missed: str | None = None
    caveat: str | None = None
    error: str | None = None
    sampled_by: str | None = None

    def verdict(self, did: Callable[[], Verdict]) -> Verdict | None:
        """What a user is told; None if the run broke off for reasons of others.

        did: what the interceptor says of itself; asked only if it could do something.
        """
        if self.error is not None:
            return failed(self.error)
        if self.samples is None:
            return None
        if self.stock is not None:
            return failed(f"stock model: {self.stock}")
        if self.missed is not None:
            return failed(self.missed)
        if self.run is None:
            return failed("the sampler did not call the model")
        return did().but(self.caveat)
