"""What the policy may change of a job: everything, or less, to see what each freedom is worth.

The ablations of the paper (MLSys 2025, section 7.3): Rubick-E changes plans on the accelerators
that were asked for, Rubick-R accelerators under the plan that was asked for, Rubick-N neither.
"""

from enum import StrEnum

from controlplane.domain.job import JobSpec
from controlplane.domain.step_times import Way
from controlplane.placing.layout import family


class Freedom(StrEnum):
    """What may differ from what a job asks for."""

    EVERYTHING = "everything"
    PLANS = "plans"
    """Rubick-E."""
    ACCELERATORS = "accelerators"
    """Rubick-R: of a plan only the number of replicas changes."""
    NOTHING = "nothing"
    """Rubick-N."""

    def allows(self, spec: JobSpec, way: Way) -> bool:
        """Whether a job may be given this way.

        Args:
            spec: Of the job. Where it names no plan that it asks for, any plan is as asked.
            way: The way.
        """
        if self in (Freedom.PLANS, Freedom.NOTHING) and way.accelerators != (
            spec.accelerators.asked_for
        ):
            return False
        asked = spec.requested_plan
        if asked is None or self in (Freedom.EVERYTHING, Freedom.PLANS):
            return True
        if self is Freedom.NOTHING:
            return way.plan == asked
        return family(way.plan) == family(asked)
