"""Equal shares under the plan that each job asks for, by step times that are known.

On each event every job gets the largest number of accelerators within an equal share on which its
plan was measured, with more or fewer replicas; what is left over goes to jobs in order of arrival.
``equal_share`` deals out accelerators to jobs of which nothing is known; this is the same idea for
a comparison in which steps take what was measured.
"""

from dataclasses import dataclass

from controlplane.baselines.equal_counts import equal_counts
from controlplane.baselines.layouts import (
    Layout,
    as_requested,
    scaled,
    under_the_plan_asked_for,
    unmeasured,
)
from controlplane.baselines.seating import Seating, Wish, layout_of
from controlplane.domain.policy import Decision
from controlplane.domain.record import Intent, JobRecord
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_times import StepTimes
from controlplane.placing.standing import (
    Standing,
    Standings,
    kinds_of_nodes,
    total_by_kind,
)


@dataclass(frozen=True, slots=True)
class MeasuredShare:
    """The policy.

    Attributes:
        step_times: Knows on which numbers of accelerators a plan runs.
        moves_others: Whether smaller jobs are moved together to make room for larger ones.
    """

    step_times: StepTimes
    moves_others: bool = True

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What had to be assumed, to be printed with every result."""
        return (
            "equal-share: the plan is the one that the job asks for, only its replicas change; of "
            "each number of accelerators the fastest measured shares",
            "equal-share: decides on events; a job that has not trained yet is not restarted only "
            "to grow",
            "equal-share: a job whose share finds no room takes the next smaller number"
            + (", after smaller jobs were moved together" if self.moves_others else ""),
        )

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        """Where each job should run."""
        return _Round(self, snapshot).decide()


class _Round:
    """One decision in the making."""

    def __init__(self, policy: MeasuredShare, snapshot: ClusterSnapshot) -> None:
        self.policy = policy
        self.snapshot = snapshot
        self.now = Standings(snapshot, under_the_plan_asked_for)

    def decide(self) -> Decision:
        taking: dict[str, list[tuple[Standing, tuple[Layout, ...]]]] = {}
        for each in self.now.jobs:
            layouts = self._layouts(each.record)
            if layouts:
                kind = layouts[0].kind or self._largest(each.record)
                taking.setdefault(kind, []).append((each, layouts))
            elif each.place is not None and each.runs:
                self.now.keep(each.record, each.place)
            else:
                self.now.reasons[each.uid] = unmeasured(each.record.job.spec)
        seating = Seating(self.snapshot, self.now.left(), self.now.quotas)
        limits, wishes = total_by_kind(self.snapshot, self.now.taken), []
        kinds = kinds_of_nodes(self.snapshot)
        for kind, jobs in taking.items():
            sizes = [[layout.accelerators for layout in layouts] for _, layouts in jobs]
            shares = equal_counts(limits.get(kind, 0), sizes)
            for (each, layouts), count in zip(jobs, shares, strict=True):
                fitting = tuple(one for one in reversed(layouts) if one.accelerators <= count)
                has = -1 if each.place is None else layout_of(each, layouts, kinds)
                if not fitting:
                    continue
                calm = has >= 0 and (
                    layouts[has] is fitting[0]
                    or (layouts[has].accelerators <= count and _has_not_trained(each.record))
                )
                if not (calm and seating.stay(each, layouts[has])):
                    wishes.append(Wish(each, fitting, self.policy.moves_others))
        seating.seat(wishes)
        every = [pair for jobs in taking.values() for pair in jobs]
        self.now.settle(
            [(each, layouts[0].accelerators) for each, layouts in every],
            seating.found,
            seating.left,
        )
        return Decision(self.now.targets, self.now.reasons)

    def _largest(self, record: JobRecord) -> str:
        """Of the types that a job may use the one with most: its share is one of that."""
        there = self.now.empty.free_by_node(record.job.spec.accelerators)
        return max(there, key=lambda kind: sum(there[kind].values()), default="")

    def _layouts(self, record: JobRecord) -> tuple[Layout, ...]:
        """Of each number of accelerators the fastest way, on one type; ascending."""
        spec = record.job.spec
        rigid = not spec.elastic or spec.unit_per_node
        known = () if rigid else scaled(self.policy.step_times, spec, self.now.empty)
        known = known or as_requested(self.policy.step_times, spec, self.now.empty)
        best: dict[int, Layout] = {}
        for each in known:
            if each.kind == known[0].kind:
                best.setdefault(each.accelerators, each)
        return tuple(best.values())


def _has_not_trained(record: JobRecord) -> bool:
    attempt = record.attempt
    return attempt is not None and attempt.intent is Intent.RUN and not attempt.trained
