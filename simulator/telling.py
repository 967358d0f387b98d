"""What the ranks of virtual runs tell of their plans, and how that is learnt from: live, both are
done beside the loop.
"""

from collections.abc import Callable, Iterator

from controlplane.domain.event import ModelFitted, PlanObserved
from controlplane.domain.ids import NodeId
from controlplane.domain.job import JobSpec
from controlplane.domain.model_type import type_named
from controlplane.domain.node import Node
from controlplane.engine.loop import CycleReport
from controlplane.placing.shares import shares_of
from controlplane.rubick.learning import learn, lessons
from headrace.api.profile_rows import Asked, Machine, PlanRow, Status
from simulator.physics import Run

STEPS_UNTIL_TOLD = 18
"""So many steps under a plan, and its ranks tell, at the latest
(``headrace.workloads.training.observing``). They tell no second time: the steps of a run all take
as long.
"""


def observed(
    run: Run, spec: JobSpec, node_of: Callable[[NodeId], Node | None]
) -> PlanObserved | None:
    """What a run tells; None for a job whose type nobody knows.

    Args:
        run: The run, which has done enough steps.
        spec: Of its job.
        node_of: Nodes by name.
    """
    named, node = type_named(spec.model_type), node_of(run.first_unit.node)
    if named is None or node is None:
        return None
    model, precision = spec.model_type.split(" ")[:2]
    ranks = run.placement.accelerator_count
    row = PlanRow(
        asked=Asked(model, ranks, named.samples, named.positions, precision),
        plan=str(run.placement.plan),
        status=Status.MEASURED,
        placement="+".join(map(str, shares_of(run.placement))),
        steps=STEPS_UNTIL_TOLD,
        iteration=run.step_seconds,
        machine=Machine(node.accelerators[0].type, 1, "", "", "", "", ""),
    )
    step = int(run.first_step) + STEPS_UNTIL_TOLD
    return PlanObserved(run.uid, run.attempt, step, row, run.first_unit.node)


def learnt(report: CycleReport) -> Iterator[ModelFitted]:
    """Fits of what was told in a cycle, as the live learner makes them, at once."""
    if not any(isinstance(each.event, PlanObserved) for each in report.events):
        return
    state = report.state
    for lesson in lessons(state.observations.values(), state.fits):
        found = learn(lesson)
        if found.fit is not None:
            yield ModelFitted(found.fit)
