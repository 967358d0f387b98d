"""A unit that waits for nothing longer than a test has to: neither for a step at which nothing is
being saved, nor for a store to show what another node wrote, nor for who gives no sign of life or
comes late.
"""

from headrace.workloads import launch, rendezvous
from headrace.workloads.training import joining, wish


def main() -> int:
    """Run the unit."""
    wish._PATIENCE_SECONDS = -1.0
    joining.PROOF_SECONDS = 1.0
    rendezvous.LINGER_FOR_LATECOMERS_SECONDS = 0.0
    joining._SILENT_SECONDS = 3.0
    return launch.main()
