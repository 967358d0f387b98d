"""How many random worlds and lives are played."""

import os

from hypothesis import HealthCheck, settings

_MORE = os.environ.get("HEADRACE_LIVES")


def worlds(few: int) -> settings:
    """A few that are always the same, or as many others as ``make lives`` asks for."""
    return settings(
        max_examples=int(_MORE or few),
        deadline=None,
        derandomize=not _MORE,
        suppress_health_check=list(HealthCheck),
    )
