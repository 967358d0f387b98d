"""AdminService: nodes, queues, policy, explain, snapshot and backup; and the metrics page."""

import asyncio
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from controlplane.domain import codec
from controlplane.domain.clock import Instant
from controlplane.domain.ids import JobUid
from controlplane.domain.policy import Decision, Violation
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.edges.grpc_server import export
from controlplane.edges.grpc_server.history import History
from controlplane.edges.store.backup import restore
from controlplane.edges.store.rows import StoredDecision
from controlplane.edges.wall_clock import WallClock
from controlplane.engine.state import ClusterState
from controlplane.rubick.policy import Rubick
from headrace.api.generated import admin_pb2, common_pb2, jobs_pb2
from tests.contract.grpc.harness import (
    Agent,
    Api,
    an_api,
    eventually,
    launches,
    refusal,
    run,
    violations,
)


async def the_node(api: Api) -> admin_pb2.NodeStatus:
    """The one node, once its registration was folded."""

    async def there() -> admin_pb2.NodeStatus | None:
        nodes = (await api.admin.ListNodes(admin_pb2.ListNodesRequest())).nodes
        return nodes[0] if nodes else None

    return await eventually(there)


def test_the_cluster_at_a_glance(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path, dashboard_url="http://127.0.0.1:8265") as api:
            created = await api.submit()
            agent = Agent(api)
            await agent.register()
            await agent.assigned(launches)
            await api.until_stage(created.uid, "Starting")
            cluster = await api.admin.GetCluster(admin_pb2.GetClusterRequest())
            node = await the_node(api)
        assert (cluster.state, cluster.term, cluster.policy) == ("deciding", 1, "equal-share")
        assert (cluster.accelerators_total, cluster.accelerators_held) == (2, 2)
        assert cluster.dashboard_url == "http://127.0.0.1:8265"
        assert cluster.version
        assert cluster.now.seconds > 0
        assert dict(node.holders) == {"slot-0": created.uid, "slot-1": created.uid}
        assert node.contact == "Online"

    run(test())


def test_a_node_is_drained_and_taken_back_and_removed_only_when_lost(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent = Agent(api)
            await agent.register()

            async def known() -> bool:
                return bool((await api.admin.ListNodes(admin_pb2.ListNodesRequest())).nodes)

            await eventually(known)
            drain, node = api.admin.DrainNode, agent.node
            await drain(admin_pb2.DrainNodeRequest(node=node, drained=True))
            assert (await the_node(api)).drained
            await drain(admin_pb2.DrainNodeRequest(node=node, drained=False))
            assert not (await the_node(api)).drained
            unknown = await refusal(drain(admin_pb2.DrainNodeRequest(node="node-z")))
            online = await refusal(api.admin.RemoveNode(admin_pb2.RemoveNodeRequest(node=node)))
            await api.admin.SetPolicy(
                admin_pb2.SetPolicyRequest(settings={"node_grace_seconds": "1"})
            )

            async def lost() -> bool:
                return (await the_node(api)).contact == "Lost"

            await eventually(lost)
            await api.admin.RemoveNode(admin_pb2.RemoveNodeRequest(node=node))
            left = (await api.admin.ListNodes(admin_pb2.ListNodesRequest())).nodes
        assert unknown.code() is grpc.StatusCode.NOT_FOUND
        assert "node-a" in (unknown.details() or "")
        assert online.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert not left

    run(test())


def test_queues_are_made_changed_listed_and_removed(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            put = api.admin.PutQueue
            queue = common_pb2.Queue(name="research", quota_accelerators=4)
            made = await put(admin_pb2.PutQueueRequest(queue=queue))
            queue.ClearField("quota_accelerators")
            changed = await put(admin_pb2.PutQueueRequest(queue=queue))
            job = await api.submit(queue="research")
            delete = api.admin.DeleteQueue
            used = await refusal(delete(admin_pb2.DeleteQueueRequest(name="research")))
            listed = (await api.admin.ListQueues(admin_pb2.ListQueuesRequest())).queues
            await api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid=job.uid))

            async def forgotten() -> bool:
                return not (await api.jobs.ListJobs(jobs_pb2.ListJobsRequest())).jobs

            await eventually(forgotten)
            await delete(admin_pb2.DeleteQueueRequest(name="research"))
            left = (await api.admin.ListQueues(admin_pb2.ListQueuesRequest())).queues
            default = await refusal(delete(admin_pb2.DeleteQueueRequest(name="default")))
            unknown = await refusal(delete(admin_pb2.DeleteQueueRequest(name="nothing")))
            bad = common_pb2.Queue(
                name="No Queue",
                quota_accelerators=-1,
                borrowing_accelerators=-2,
                namespaces=["Team A"],
            )
            wrong = await refusal(put(admin_pb2.PutQueueRequest(queue=bad)))
        assert made.queue.quota_accelerators == 4
        assert not changed.queue.HasField("quota_accelerators")
        assert {q.name for q in listed} == {"default", "research"}
        assert "train" in (used.details() or "")
        assert [q.name for q in left] == ["default"]
        assert default.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert unknown.code() is grpc.StatusCode.NOT_FOUND
        assert set(violations(wrong)) == {
            "queue.name",
            "queue.quota_accelerators",
            "queue.borrowing_accelerators",
            "queue.namespaces",
        }

    run(test())


def test_explain_says_who_holds_what_a_job_lacks(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            await api.admin.SetPolicy(admin_pb2.SetPolicyRequest(settings={"policy": "fifo"}))
            holder = await api.submit("holder")
            agent = Agent(api)
            await agent.register()
            await agent.assigned(launches)
            waiting = await api.submit(
                "waiting",
                accelerators={"minimum": 2},
                training={"globalBatchSize": 8, "steps": 100},
            )

            async def explained() -> admin_pb2.ExplainResponse | None:
                answer = await api.admin.Explain(admin_pb2.ExplainRequest(uid=waiting.uid))
                return answer if answer.holders else None

            told = await eventually(explained)
            decided = await api.admin.Explain(admin_pb2.ExplainRequest(uid=holder.uid))
            unknown = await refusal(api.admin.Explain(admin_pb2.ExplainRequest(uid="x")))
        assert (told.stage, told.position) == ("Queued", 1)
        assert told.reason.wanted - told.reason.available > 0
        assert [(h.name, h.uid, h.accelerators) for h in told.holders] == [
            ("holder", holder.uid, 2)
        ]
        assert decided.decisions[-1].action == "start attempt 1 with dp2 on node-a"
        assert decided.position == 0
        assert unknown.code() is grpc.StatusCode.NOT_FOUND

    run(test())


def test_explain_says_first_that_what_was_decided_was_refused_and_by_which_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy would still say what the job gets, which is not carried out."""

    def blames_odd(
        self: Rubick, snapshot: ClusterSnapshot, decision: Decision
    ) -> Iterator[Violation]:
        for uid, record in snapshot.jobs.items():
            if record.job.name == "odd" and uid in decision.targets:
                yield Violation("odd: a rule is broken", (uid,))

    monkeypatch.setattr(Rubick, "violations", blames_odd)

    async def test() -> None:
        async with an_api(tmp_path) as api:
            await api.admin.SetPolicy(admin_pb2.SetPolicyRequest(settings={"policy": "rubick"}))
            agent = Agent(api)
            await agent.register()
            odd = await api.submit("odd")

            async def refused() -> admin_pb2.ExplainResponse | None:
                answer = await api.admin.Explain(admin_pb2.ExplainRequest(uid=odd.uid))
                return answer if answer.reason.code == "PolicyRefused" else None

            told = await eventually(refused)
            good = await api.submit("good")
            await agent.assigned(launches)
            await api.until_stage(good.uid, "Starting")
        first = told.because[0]
        assert first.startswith(
            "What the policy decided about it was refused: odd: a rule is broken. It waits"
        )
        assert not any("It gets" in each for each in told.because)

    run(test())


LLAMA = {
    "model": {"name": "llama", "preset": "2-7b"},
    "data": {"source": "python-stdlib", "sequenceLength": 1024},
    "training": {"globalBatchSize": 8, "steps": 100, "precision": "bf16"},
    "accelerators": {"minimum": 1},
}


def test_a_plan_that_does_not_fit_is_passed_over_and_explain_says_by_how_much(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            card: dict[str, Any] = {"type": "h100", "memory_bytes": 85_520_809_984}
            agent = Agent(api, slots=1, host_memory_bytes=2**39, **card)
            await agent.register()
            waits = await api.submit("waits", **LLAMA, plans=["dp1"])
            light = await api.submit("light", **LLAMA, plans=["dp1", "dp1-z2-offload"])
            (launch,) = (await agent.assigned(launches)).launches
            await api.until_stage(light.uid, "Starting")
            runs = await api.admin.Explain(admin_pb2.ExplainRequest(uid=light.uid))

            async def refused() -> admin_pb2.ExplainResponse | None:
                answer = await api.admin.Explain(admin_pb2.ExplainRequest(uid=waits.uid))
                return answer if answer.reason.code == "DoesNotFit" else None

            told = await eventually(refused)
        assert launch.plan == "dp1-z2-offload"
        assert runs.decisions[-1].action == "start attempt 1 with dp1-z2-offload on node-a"
        (unfit,) = runs.does_not_fit
        assert (unfit.plan, unfit.type) == ("dp1", "h100")
        assert unfit.message.startswith(f"does not fit by {unfit.missing_bytes / 2**30:.1f} GiB")
        assert told.stage == "Queued"
        assert told.reason.message.startswith("dp1 on h100 does not fit by 67.5 GiB: wanted 147")

    run(test())


def test_the_estimate_is_not_asked_where_the_manifest_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent = Agent(api, slots=1, type="h100", memory_bytes=85_520_809_984)
            await agent.register()
            job = await api.submit("job", **LLAMA, plans=["dp1"], ignoreMemoryEstimate=True)
            (launch,) = (await agent.assigned(launches)).launches
            told = await api.admin.Explain(admin_pb2.ExplainRequest(uid=job.uid))
        assert launch.plan == "dp1"
        assert not told.does_not_fit

    run(test())


def test_explain_tells_of_one_moment_while_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = History.decisions

    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit()
            await api.until_stage(created.uid, "Queued")

            async def after_it_began(
                self: History, uid: JobUid, limit: int
            ) -> Sequence[StoredDecision]:
                await Agent(api).register()
                await api.until_stage(created.uid, "Starting")
                return await told(self, uid, limit)

            monkeypatch.setattr(History, "decisions", after_it_began)
            explained = await api.admin.Explain(admin_pb2.ExplainRequest(uid=created.uid))
        assert (explained.stage, explained.position) == ("Queued", 1)

    run(test())


def test_explain_says_when_a_job_that_failed_is_tried_again_and_after_what(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent = Agent(api)
            await agent.register()
            created = await api.submit(retries={"max": 1, "backoffSeconds": 1})
            launch = (await agent.assigned(launches)).launches[0]
            await agent.started(launch)
            await agent.exited(launch, "Failed", 100)

            async def explained(stage: str) -> admin_pb2.ExplainResponse | None:
                told = await api.admin.Explain(admin_pb2.ExplainRequest(uid=created.uid))
                return told if told.stage == stage else None

            failed = await eventually(lambda: explained("BackingOff"))
            again = await eventually(lambda: explained("Starting"))
        assert failed.retry_at.seconds >= failed.decisions[0].at.seconds + 1
        assert not again.HasField("retry_at")
        assert "again, after attempt 1: " in again.decisions[-1].reason.message

    run(test())


def test_who_waits_far_behind_is_told_who_holds_and_who_comes_first_now(tmp_path: Path) -> None:
    """Although neither is logged anew when others start and finish."""
    two = {"minimum": 2}

    async def test() -> None:
        async with an_api(tmp_path) as api:
            await api.admin.SetPolicy(admin_pb2.SetPolicyRequest(settings={"policy": "fifo"}))
            agent = Agent(api)
            await agent.register()
            uids = [(await api.submit(name, accelerators=two)).uid for name in "abcd"]

            async def explained(holder: str, ahead: str) -> admin_pb2.ExplainResponse | None:
                told = await api.admin.Explain(admin_pb2.ExplainRequest(uid=uids[-1]))
                found = ([each.uid for each in told.holders], told.reason.behind)
                return told if found == ([holder], ahead) else None

            first = await eventually(lambda: explained(uids[0], uids[1]))
            await agent.exited((await agent.assigned(launches)).launches[0], "Succeeded", 100)
            then = await eventually(lambda: explained(uids[1], uids[2]))
            listed = await api.job(uids[-1])
        assert listed.status.reason == then.reason
        assert first.reason.wanted - first.reason.available == 2
        assert (first.reason.code, then.reason.code) == ("BehindEarlierJob", "BehindEarlierJob")
        assert "default/c wants 2 before it" in then.reason.message
        assert len(then.decisions) == len(first.decisions) == 1

    run(test())


def test_a_snapshot_is_the_state_without_secrets(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit(env=[{"name": "API_KEY", "value": "hunter2"}])
            await Agent(api).register()
            await api.job(created.uid)
            pieces: list[bytes] = []

            async def complete() -> bool:
                call = api.admin.ExportSnapshot(admin_pb2.ExportSnapshotRequest())
                pieces[:] = [piece.data async for piece in call]
                return created.uid.encode() in b"".join(pieces)

            await eventually(complete)
        text = b"".join(pieces).decode()
        state = codec.load(text, ClusterState)
        assert "hunter" not in text
        assert "API_KEY" in text
        assert list(state.jobs) == [created.uid]

    run(test())


def test_a_snapshot_is_made_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large one takes seconds, and the lease is renewed by that loop."""
    made_by: set[str] = set()
    written = codec.dump

    def noted(value: object, kind: Any) -> str:
        made_by.add(threading.current_thread().name)
        return written(value, kind)

    async def test() -> None:
        async with an_api(tmp_path) as api:
            monkeypatch.setattr(export, "dump", noted)
            call = api.admin.ExportSnapshot(admin_pb2.ExportSnapshotRequest())
            assert [piece async for piece in call]

    run(test())
    assert made_by
    assert threading.main_thread().name not in made_by


def test_a_backup_made_while_jobs_run_is_restored(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit()
            agent = Agent(api)
            await agent.register()
            launch = (await agent.assigned(launches)).launches[0]
            await agent.started(launch)
            await agent.progressed(launch, 5, 2.0)
            await api.until_step(created.uid, 5)
            call = api.admin.Backup(admin_pb2.BackupRequest())
            (tmp_path / "backup").write_bytes(b"".join([p.data async for p in call]))
        copy = tmp_path / "copy"
        copy.mkdir()
        restore(
            [(tmp_path / "backup").read_bytes()], f"sqlite:///{copy / 'headrace.db'}", Instant(1)
        )
        async with an_api(copy) as api:
            job = await api.job(created.uid)
            losses = await api.jobs.GetLosses(jobs_pb2.GetLossesRequest(uid=created.uid))
            cluster = await api.admin.GetCluster(admin_pb2.GetClusterRequest())
        assert job.status.progress.step == 5
        assert [p.step for p in losses.points] == [5]
        assert cluster.term > 1
        assert cluster.state == "recovering"

    run(test())


def test_a_restored_store_orders_nothing_before_strangers_had_time_to_speak(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit()
            call = api.admin.Backup(admin_pb2.BackupRequest())
            backup = b"".join([piece.data async for piece in call])
        copy = tmp_path / "copy"
        copy.mkdir()
        restore([backup], f"sqlite:///{copy / 'headrace.db'}", Instant(1))
        # The second one was started because the first one ended while it still waited.
        for name in ("later", "even-later"):
            async with an_api(copy) as api:
                await Agent(api).register()
                later = await api.submit(name)

                async def told(api: Api = api, uid: str = later.uid) -> bool:
                    job = await api.job(uid)
                    return bool(job.status.reason.code == "ControlPlaneRecovering")

                assert await eventually(told)
                job = await api.job(created.uid)
                cluster = await api.admin.GetCluster(admin_pb2.GetClusterRequest())
            assert job.status.stage == "Queued"
            assert cluster.state == "recovering"

    run(test())


def test_no_attempt_of_the_lost_future_is_given_out_again(tmp_path: Path) -> None:
    """Ranks that run on unseen after the backup hold the same attempt number otherwise."""

    async def test() -> None:
        async with an_api(tmp_path) as api:
            one = {"minimum": 1, "maximum": 1}
            created = await api.submit(accelerators=one)
            grace = {"recovery_grace_seconds": "0"}
            await api.admin.SetPolicy(admin_pb2.SetPolicyRequest(settings=grace))
            call = api.admin.Backup(admin_pb2.BackupRequest())
            backup = b"".join([piece.data async for piece in call])
            agent = Agent(api)
            await agent.register()
            lost = (await agent.assigned(launches)).launches[0]
        copy = tmp_path / "copy"
        copy.mkdir()
        target = f"sqlite:///{copy / 'headrace.db'}"
        restore([backup], target, WallClock().now())
        floor = int(time.time()) - 60
        async with an_api(copy) as api:
            agent = Agent(api, "node-b")
            await agent.register()
            again = (await agent.assigned(launches)).launches[0]
            later = await api.submit("later", accelerators=one)
        async with an_api(copy) as api:
            agent = Agent(api, "node-b")
            await agent.register()
            both = await agent.assigned(lambda told: len(told.launches) > 1)
        numbers = {launch.uid: launch.attempt for launch in both.launches}
        assert lost.uid == again.uid == created.uid
        assert again.attempt > floor > lost.attempt
        assert numbers == {created.uid: again.attempt, later.uid: 1}

    run(test())


def test_health_and_reflection_answer(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            stub = health_pb2_grpc.HealthStub(api.channel)

            async def serving() -> bool:
                for service in ("", "headrace.v1alpha1.JobService"):
                    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
                    if answer.status != health_pb2.HealthCheckResponse.SERVING:
                        return False
                return True

            assert await eventually(serving)

            def names() -> set[str]:
                with grpc.insecure_channel(api.plane.address) as channel:
                    return set(ProtoReflectionDescriptorDatabase(channel).get_services())

            found = await asyncio.to_thread(names)
        assert {
            "headrace.v1alpha1.JobService",
            "headrace.v1alpha1.NodeService",
            "headrace.v1alpha1.AdminService",
            "grpc.health.v1.Health",
        } <= found

    run(test())


def test_the_metrics_page_tells_what_happened(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit()
            agent = Agent(api)
            await agent.register()
            launch = (await agent.assigned(launches)).launches[0]
            await agent.started(launch)
            await agent.progressed(launch, 5, 2.0)
            await api.until_step(created.uid, 5)
            await api.submit("second")

            def page() -> str:
                with urllib.request.urlopen(
                    f"http://{api.plane.metrics_address}/metrics"
                ) as answer:
                    text: str = answer.read().decode()
                    return text

            async def complete() -> str | None:
                text = await asyncio.to_thread(page)
                return text if 'headrace_decisions_total{reason="ShrunkFor' in text else None

            text = await eventually(complete)
        for line in (
            'headrace_build_info{version="',
            "headrace_term 1.0",
            'headrace_pending_jobs{queue="default"} ',
            'headrace_running_jobs{queue="default"} 1.0',
            'headrace_queue_resource_usage{queue="default"} 2.0',
            'headrace_admission_wait_time_seconds_count{queue="default"} 1.0',
            "headrace_admission_attempt_duration_seconds_count",
            'headrace_events_appended_total{kind="JobSubmitted"} ',
            'headrace_decisions_total{reason="Started"} 1.0',
            'headrace_reconfigurations_total{reason="ShrunkForOthers"} 1.0',
            'headrace_accelerator_seconds_total{queue="default",state="running"}',
            'headrace_grpc_server_handling_seconds_count{grpc_code="OK",grpc_method="SubmitJob"}',
        ):
            assert line in text
        assert created.uid not in text
        assert "node-a" not in text

    run(test())


def test_what_ran_out_of_memory_is_explained_and_listed(tmp_path: Path) -> None:
    tiny = {**LLAMA, "model": {"name": "llama", "preset": "tiny"}}

    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent = Agent(api, slots=1, type="h100")
            await agent.register()
            first = await api.submit("first", **tiny, plans=["dp1"])
            (launch,) = (await agent.assigned(launches)).launches
            await agent.exited(launch, "Failed", reason="OutOfMemory")
            await api.until_stage(first.uid, "Failed")
            second = await api.submit("second", **tiny, plans=["dp1"])

            async def waits() -> admin_pb2.ExplainResponse | None:
                answer = await api.admin.Explain(admin_pb2.ExplainRequest(uid=second.uid))
                return answer if answer.reason.code == "DoesNotFit" else None

            told = await eventually(waits)
            answer = await api.admin.ListObservations(admin_pb2.ListObservationsRequest())
        (unfit,) = told.does_not_fit
        assert unfit.plan == "dp1"
        assert unfit.message == "ran out of memory in job default/first on h100"
        row = answer.observations[0].measured
        assert (row.model, row.plan, row.status) == ("llama-tiny", "dp1", "out-of-memory")
        assert row.reason == unfit.message

    run(test())
