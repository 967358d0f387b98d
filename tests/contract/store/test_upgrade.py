"""A store that an earlier control plane left opens, and shows what was in it.

tests/fixtures/README.md says how the file was made.
"""

import asyncio
import lzma
import math
from pathlib import Path

import pytest

from controlplane.domain.lifecycle import Stage
from controlplane.domain.record import Intent, JobRecord
from controlplane.edges.store.store import Store
from controlplane.engine.state import ClusterState
from headrace.api.generated import admin_pb2, jobs_pb2
from tests.builders import launches_for
from tests.contract.grpc.harness import an_api

FIXTURES = Path(__file__).parents[2] / "fixtures"
EARLIER = (
    "headrace-before-0.1.0.db",
    "headrace-0.1.0.db",
    *sorted(str(file.relative_to(FIXTURES)) for file in FIXTURES.glob("*/store.db.xz")),
)


def content_of(name: str) -> bytes:
    """A store of the fixtures, as it was."""
    content = (FIXTURES / name).read_bytes()
    return lzma.decompress(content) if name.endswith(".xz") else content


STAGES = {
    "finished": Stage.SUCCEEDED,
    "failed": Stage.FAILED,
    "running": Stage.RUNNING,
    "withdrawn": Stage.STOPPING,
    "waiting": Stage.QUEUED,
}
STEPS = {"finished": 20, "failed": 3, "running": 20, "withdrawn": 2, "waiting": 0}


@pytest.fixture(params=EARLIER)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """With a copy of the store in it, which may be changed."""
    (tmp_path / "headrace.db").write_bytes(content_of(request.param))
    return tmp_path


def _jobs(store: Store) -> tuple[ClusterState, dict[str, JobRecord]]:
    checkpoint, events = store.load(ClusterState)
    assert checkpoint is not None
    assert events, "the file has events after its checkpoint"
    state = checkpoint.fold(events)
    return state, {record.job.name: record for record in state.jobs.values()}


def test_it_loads_and_has_exactly_its_jobs(folder: Path) -> None:
    store = Store.open(f"sqlite:///{folder / 'headrace.db'}")
    state, jobs = _jobs(store)

    assert {name: record.stage for name, record in jobs.items()} == STAGES
    assert {name: record.progress.step for name, record in jobs.items()} == STEPS
    assert [name for name, record in jobs.items() if record.withdrawn] == ["withdrawn"]
    assert {record.job.spec.plans for record in jobs.values()} == {()}
    attempt = jobs["withdrawn"].attempt
    assert attempt is not None
    assert attempt.intent is Intent.END
    assert [(queue.name, queue.quota_accelerators) for queue in state.queues.values()] == [
        ("default", None),
        ("research", 4),
    ]
    for name, record in jobs.items():
        losses = store.losses(record.uid)
        assert [point.step for point in losses] == list(range(1, STEPS[name] + 1))
        assert all(math.isclose(point.loss, 4.0 / point.step) for point in losses)
        assert store.decisions(record.uid), f"what was decided of {name}"

    (node,) = state.nodes
    ordered = {launch.uid: launch.intent for launch in launches_for(state, node)}
    assert ordered == {jobs["running"].uid: Intent.RUN, jobs["withdrawn"].uid: Intent.END}
    store.close()


@pytest.mark.parametrize("name", EARLIER)
def test_it_tells_nothing_of_the_machine_it_was_made_on(name: str) -> None:
    content = content_of(name)
    assert content.startswith(b"SQLite")
    assert not [path for path in (b"/home/", b"/root/", b"/tmp/", b"/Users/") if path in content]


def test_this_control_plane_goes_on_with_it(folder: Path) -> None:
    async def scenario() -> None:
        # The name it had: it need not wait until the lease is stale by this machine's clock.
        async with an_api(folder, holder="headrace-0.1.0") as api:
            listed = (await api.jobs.ListJobs(jobs_pb2.ListJobsRequest())).jobs
            assert {job.name for job in listed} == set(STAGES)
            uids = {job.name: job.uid for job in listed}
            told = (await api.jobs.GetLosses(jobs_pb2.GetLossesRequest(uid=uids["running"]))).points
            assert [point.step for point in told] == list(range(1, 21))
            cluster = await api.admin.GetCluster(admin_pb2.GetClusterRequest())
            assert cluster.term == 3, "the file was written in terms 1 and 2"
            again = await api.submit("after-the-upgrade")
            assert (await api.job(again.uid)).status.stage == "Queued"

    asyncio.run(scenario())
    store = Store.open(f"sqlite:///{folder / 'headrace.db'}")
    assert set(_names_after(store)) == {*STAGES, "after-the-upgrade"}
    store.close()


def _names_after(store: Store) -> list[str]:
    checkpoint, events = store.load(ClusterState)
    state = (checkpoint or ClusterState.empty()).fold(events)
    return [record.job.name for record in state.jobs.values()]
