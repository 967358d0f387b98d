"""Changes of a job's plan or place: those on their way, and what each one cost."""

from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.placement import LaunchUnit
from controlplane.domain.reason import Reason, ReasonCode
from headrace.api.plan import ExecutionPlan

SWITCHES_KEPT = 16
"""So many of a job's last switches are remembered."""


class SwitchKind(StrEnum):
    """How a job came from one plan or place to another."""

    MEMORY = "Memory"
    """The ranks stayed, and moved their state among themselves."""
    RESTART = "Restart"
    """The ranks saved and ended, and others went on from the checkpoint."""


@dataclass(frozen=True, slots=True)
class Switch:
    """One change that is over.

    Attributes:
        kind: How it was done.
        before: Plan that was left.
        after: Plan that was taken up.
        accelerators_before: Accelerators held under the one.
        accelerators_after: Accelerators held under the other.
        reason: What it was for.
        step: Last step under the plan that was left; a restart may begin before it.
        ordered_at: When it was decided.
        done_at: When the first step under the new plan was reported, or the change itself.
        stood_still_seconds: For how long the job did not train. As the ranks measured it for a
            change in memory; else from the last step that was reported, or the order if that came
            later, to the first one, so to the second or so.
        phases: Where the time went, as (name, seconds) in order.
    """

    kind: SwitchKind
    before: ExecutionPlan
    after: ExecutionPlan
    accelerators_before: int
    accelerators_after: int
    reason: ReasonCode
    step: int
    ordered_at: Instant
    done_at: Instant
    stood_still_seconds: float
    phases: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class PlanChange:
    """Another plan that running ranks were asked to take up, until they say that they did.

    Attributes:
        before: The plan that is in force meanwhile.
        reason: Why it was ordered.
        ordered_at: When.
        refused: Why the ranks keep the plan that they have; empty while they have not said no.
        units: Those that train meanwhile; empty if they are the same as afterwards.
        given_up: Whether this is back to ``before``, as others could not join; it is over once the
            ranks confirm that they train on as they did.
        heard_at: When the agent that tells the answer introduced itself last; 0 if not since then.
            It may have had an answer to tell for as long as it was out of touch.
    """

    before: ExecutionPlan
    reason: Reason
    ordered_at: Instant
    refused: str = ""
    units: tuple[LaunchUnit, ...] = ()
    given_up: bool = False
    heard_at: Instant = Instant(0)


@dataclass(frozen=True, slots=True)
class Restart:
    """A planned stop of which the next start has not reported a step yet.

    Attributes:
        before: Plan that was left.
        accelerators: Accelerators that were held.
        reason: Why.
        step: Last step that was trained.
        ordered_at: When the stop was ordered.
        trained_at: When the last step was reported.
        first_exit_at: When the first unit was gone.
        last_exit_at: When the last one was.
    """

    before: ExecutionPlan
    accelerators: int
    reason: ReasonCode
    step: int
    ordered_at: Instant
    trained_at: Instant
    first_exit_at: Instant
    last_exit_at: Instant

    def over(
        self,
        after: ExecutionPlan,
        accelerators: int,
        *,
        started_at: Instant,
        up_at: Instant,
        trains_at: Instant,
    ) -> Switch:
        """The whole change, once the next attempt trains.

        Args:
            after: Its plan.
            accelerators: What it holds.
            started_at: When its start was ordered.
            up_at: When all its units were up.
            trains_at: When its first step was reported.
        """
        moments = (
            ("drain", self.ordered_at, self.first_exit_at),
            ("leave", self.first_exit_at, self.last_exit_at),
            ("wait", self.last_exit_at, started_at),
            ("start", started_at, up_at),
            ("load", up_at, trains_at),
        )
        since = max(self.ordered_at, self.trained_at)
        return Switch(
            kind=SwitchKind.RESTART,
            before=self.before,
            after=after,
            accelerators_before=self.accelerators,
            accelerators_after=accelerators,
            reason=self.reason,
            step=self.step,
            ordered_at=self.ordered_at,
            done_at=trains_at,
            stood_still_seconds=_seconds(since, trains_at),
            phases=tuple((name, _seconds(start, end)) for name, start, end in moments),
        )


def _seconds(start: Instant, end: Instant) -> float:
    return max(0, end - start) / SECOND
