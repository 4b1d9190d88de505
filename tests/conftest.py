"""How generated tests run: the same cases every time, unless asked to explore.

`HYPOTHESIS_PROFILE=explore script/test` draws new cases; a failing one is printed with its seed.
"""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import HealthCheck, settings

from server.loops import compile_loops, uncompiled

# A busy machine must not fail a test: slow or picky generation is no fault of the code.
_PATIENT = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=_PATIENT)
settings.register_profile("explore", deadline=None, suppress_health_check=_PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


def pytest_configure(config: pytest.Config) -> None:
    """Compile the loops before the first node starts: on a fresh clone each would compile them."""
    if not hasattr(config, "workerinput"):  # once, not in each of xdist's processes
        asyncio.run(compile_loops(uncompiled()))
