"""How many examples: `bounded` is the same every time, so that CI cannot fail by chance; `long` looks for new ones."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_ANY_SPEED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "bounded", max_examples=400, stateful_step_count=25, derandomize=True, deadline=None, database=None,
    suppress_health_check=_ANY_SPEED,
)  # fmt: skip
settings.register_profile(
    "long", max_examples=int(os.environ.get("CLOISTER_FUZZ_EXAMPLES", "20000")), stateful_step_count=60, deadline=None, print_blob=True,
    suppress_health_check=_ANY_SPEED,
)  # fmt: skip
settings.load_profile("bounded")  # before `--hypothesis-profile` is looked at
