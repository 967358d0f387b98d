"""The policy rubick on a live cluster: it learns from jobs that train, and chooses by that."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.api.generated import admin_pb2
from tests.cluster.local_cluster import LocalCluster, manifest, run, until

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1200)]

STEPS = 300

BATCH = 6
"""Of no other test: what is learnt belongs to a model at a batch."""

_FROM_ITS_STEPS = re.compile(r"predicted from \d plans? of gpt2-small measured here")


@pytest.fixture
def rubick(cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The cluster under rubick, which changes a job again soon; afterwards as it was."""
    before = cluster.client.policy().version
    cluster.client.set_policy({"policy": "rubick", "rubick.cool_down_seconds": 2.0})
    yield cluster
    cluster.client.roll_back_policy(before)


def test_it_learns_from_jobs_that_train_and_chooses_by_what_it_learnt(
    rubick: LocalCluster, store: Path
) -> None:
    described = manifest("teaches", store)
    described["spec"]["training"] |= {"globalBatchSize": BATCH, "steps": 10_000}
    teacher = rubick.submit(described)
    first = until("it is explained", lambda: _because(rubick, teacher))
    # Whether its first steps were learnt before that was answered: a loaded machine answers late.
    late = bool(_fits(rubick))
    (fit,) = until("its steps were learnt", lambda: _fits(rubick))
    assert fit.accelerator_type == "cpu"
    assert {row.uid for row in fit.compared} == {teacher}
    assert late or not _FROM_ITS_STEPS.search(" ".join(first))
    described["metadata"]["name"] = "profits"
    described["spec"]["training"]["steps"] = STEPS
    pupil = rubick.submit(described)
    rubick.trains(pupil)
    # No step of it was needed to know what its steps take.
    ((because, fit),) = until("a fit explains it", lambda: _explained(rubick, pupil))
    assert _FROM_ITS_STEPS.search(" ".join(because))
    ((plan, placement, speed),) = _chosen(because)
    for row in fit.compared:
        if (row.plan, row.placement) == (plan, placement):
            assert float(speed) == pytest.approx(1 / row.predicted_seconds, rel=0.01)
    ended = rubick.finishes(pupil)
    assert (ended.status.stage, ended.status.failures) == ("Succeeded", 0)
    assert sorted(rubick.losses(pupil)) == list(range(1, STEPS + 1))
    assert rubick.job(teacher).status.failures == 0
    assert plan in run(rubick.home, "describe", "fit", "gpt2-small")


def _because(cluster: LocalCluster, uid: str) -> list[str]:
    """Why the job gets what it gets, once it does."""
    job = cluster.job(uid)
    assert job.status.stage not in ("Succeeded", "Failed"), job.status.reason.message
    told = list(cluster.client.explain(uid).because)
    return told if told and _chosen(told) else []


def _fits(cluster: LocalCluster) -> list[admin_pb2.Fit]:
    """The fit of the jobs' type of model, once there is one."""
    about = f"gpt2-small fp32 batch {BATCH}x"
    return [fit for fit in cluster.client.fits() if fit.model_type.startswith(about)]


def _explained(cluster: LocalCluster, uid: str) -> list[tuple[list[str], admin_pb2.Fit]]:
    """Why the job gets what it gets, with the fit by which that was said; nothing while that is not
    known, or the fit changes.
    """
    before, because, after = _fits(cluster), _because(cluster, uid), _fits(cluster)
    same = [each.fitted_at for each in before] == [each.fitted_at for each in after]
    return [(because, fit) for fit in after if same and because]


def _chosen(because: list[str]) -> list[tuple[str, str, str]]:
    """Plan, how its accelerators lie, and steps a second, by an explanation."""
    return re.findall(r"^It (?:gets|keeps) (\S+) on ([\d+]+) cpu: ([\d.]+) steps", because[0])
