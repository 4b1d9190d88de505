"""How generated tests run: the same cases every time, unless asked to explore.

`HYPOTHESIS_PROFILE=explore script/test` draws new cases; a failing one is printed with its seed.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A busy machine must not fail a test: slow or picky generation is no fault of the code.
_PATIENT = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=_PATIENT)
settings.register_profile("explore", deadline=None, suppress_health_check=_PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
