from __future__ import annotations

from collections.abc import Callable

import pytest
from synthetic_host import SyntheticHost, reference
from torch import Tensor


@pytest.fixture(scope="session")
def host() -> type[SyntheticHost]:
    return SyntheticHost


@pytest.fixture(name="reference", scope="session")
def reference_fixture() -> Callable[..., Tensor]:
    return reference
