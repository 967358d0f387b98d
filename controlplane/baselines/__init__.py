"""Policies kept for comparison: ``fifo`` and ``equal-share``."""

from collections.abc import Mapping

from controlplane.baselines.equal_share import equal_share
from controlplane.baselines.fifo import fifo
from controlplane.domain.policy import Policy

BASELINES: Mapping[str, Policy] = {"fifo": fifo, "equal-share": equal_share}
