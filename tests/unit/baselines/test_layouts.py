"""How jobs are laid out as they were measured, and what of a cluster Sia's program counts."""

from controlplane.baselines.layouts import Layout, nodes_near, requested
from controlplane.baselines.sia_limits import Limits
from controlplane.domain.ids import AcceleratorId, JobUid, NodeId
from controlplane.placing.capacity import Capacity
from controlplane.placing.layout import family
from controlplane.placing.order import Quotas
from headrace.api.plan import ExecutionPlan
from tests.builders import a_cluster, a_job, a_node
from tests.step_tables import KIND, a_measured_job

WIDE = Layout(24, ExecutionPlan.parse("tp4-pp6.1f1b-ga4"), (4,) * 6, KIND, 5.3)
WHOLE = Layout(16, ExecutionPlan.parse("dp2-tp8"), (8, 8), KIND, 1.1)
FULL = Layout(8, ExecutionPlan.parse("dp8"), (8,), KIND, 0.05)
PART = Layout(4, ExecutionPlan.parse("dp4"), (4,), KIND, 0.06)


def ids(count: int) -> list[AcceleratorId]:
    return [AcceleratorId(f"a{i}") for i in range(count)]


def test_a_job_that_shrinks_stays_on_its_node_though_another_would_fit_better() -> None:
    free = {NodeId("n0"): 4, NodeId("n1"): 8}
    assert nodes_near((4,), free, {}) == ("n0",)
    assert nodes_near((4,), free, {NodeId("n1"): ids(8)}) == ("n1",)


def test_a_job_that_grows_keeps_its_node_if_that_has_room() -> None:
    free = {NodeId("n0"): 8, NodeId("n1"): 3, NodeId("n2"): 8}
    assert nodes_near((8,), free, {NodeId("n2"): ids(4)}) == ("n2",)
    assert nodes_near((8,), free, {NodeId("n1"): ids(2)}) == ("n0",)
    assert nodes_near((8, 8), free, {NodeId("n2"): ids(8)}) == ("n2", "n0")
    assert nodes_near((8, 8, 8), free, {}) is None


def test_plans_of_a_family_differ_in_replicas_and_what_follows_from_them() -> None:
    one, other = map(ExecutionPlan.parse, ("dp2-tp4-pp2.1f1b-ga4", "dp8-tp4-pp2.1f1b"))
    assert family(one) == family(other)
    assert family(one) != family(ExecutionPlan.parse("dp2-tp2-pp4.1f1b-ga4"))
    assert family(ExecutionPlan.parse("dp4")) != family(ExecutionPlan.parse("dp4-z2"))


def test_what_is_asked_for_is_a_size_that_the_job_can_have() -> None:
    assert requested(a_job().wanting(5, 8).with_batch(12).job.spec) == (6, ExecutionPlan(6))
    assert requested(a_measured_job("t5", "t5", "dp8-z2").job.spec) == (
        8,
        ExecutionPlan.parse("dp8-z2"),
    )
    assert requested(a_job().wanting(5).with_batch(12).job.spec) is None


def test_whole_nodes_are_lost_to_jobs_on_parts_of_several() -> None:
    world = a_cluster().with_node(*(a_node(f"n{i}", 8, KIND) for i in range(8)))
    world.with_queue("q", quota=5)
    snapshot = world.state.snapshot(world.now)
    taken = {(NodeId("n0"), AcceleratorId("n0-0"))}
    limits = Limits(snapshot, taken, Quotas(snapshot), Capacity(snapshot))
    uid, spec = JobUid("wide"), a_measured_job("wide", "llama30", str(WIDE.plan)).job.spec
    limits.add_wide(uid, (WIDE,))
    (nodes,) = (name for name in limits.amounts if name.startswith("nodes of"))
    assert limits.amounts == {
        f"type {KIND}": 63,
        f"whole nodes of {KIND}": 7,
        "queue q": 5,
        nodes: 8,
    }
    kind, whole = f"type {KIND}", f"whole nodes of {KIND}"
    assert dict(limits.uses(uid, spec, WIDE)) == {kind: 24, nodes: 6}
    assert dict(limits.uses(JobUid("a"), spec, WHOLE)) == {kind: 16, whole: 2, nodes: 2}
    assert dict(limits.uses(JobUid("a"), spec, FULL)) == {kind: 8, whole: 1, nodes: 1}
    in_q = a_job().in_queue("q").job.spec
    assert dict(limits.uses(JobUid("b"), in_q, PART)) == {kind: 4, "queue q": 4}
