"""NodeService: registration, numbered assignments, reports, silence, and terms."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.control_folder import ObservedLine
from agent.desired import UnitKey
from agent.outbox import Batch, PendingPlans
from agent.translate import report
from headrace.api.generated import admin_pb2, common_pb2, jobs_pb2, nodes_pb2
from headrace.api.measured_plan import row_from_wire
from headrace.api.profile_rows import Asked, Machine, PlanRow, Status
from tests.contract.grpc.harness import (
    Agent,
    Api,
    an_api,
    eventually,
    launches,
    refusal,
    refused_stream,
    run,
    violations,
)


def test_a_job_runs_from_submission_to_success(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit()
            agent = Agent(api)
            registered = await agent.register()
            assignment = await agent.assigned(launches)
            launch = assignment.launches[0]
            await agent.started(launch)
            met = await agent.assigned(
                lambda a: bool(a.launches) and bool(a.launches[0].rendezvous)
            )
            await agent.progressed(launch, 7, 2.5)
            running = await api.until_step(created.uid, 7)
            await agent.exited(launch, "Succeeded", 100)
            done = await api.until_stage(created.uid, "Succeeded")
            empty = await agent.assigned(lambda a: not a.launches)
        assert registered.heartbeat_seconds == 200.0
        assert (launch.plan, launch.ranks_total, launch.units_total) == ("dp2", 2, 2)
        assert [unit.cpu_cores[:] for unit in launch.units] == [[0], [1]]
        assert met.launches[0].rendezvous == "127.0.0.1:4000"
        assert empty.number > met.number > assignment.number >= 1
        assert {assignment.term, met.term, empty.term} == {1}
        assert running.status.progress.step == 7
        told = {c.type: c.status for c in running.status.conditions}
        assert told == {
            "Admitted": "True",
            "Scheduled": "True",
            "Running": "True",
            "Reconfiguring": "False",
            "Succeeded": "False",
            "Failed": "False",
            "Suspended": "False",
            "CheckpointMissed": "False",
        }
        told = {c.type: c.status for c in done.status.conditions}
        assert (told["Succeeded"], told["Running"], told["Admitted"]) == ("True", "False", "False")

    run(test())


def test_a_command_is_started_once_on_a_node_with_all_its_accelerators(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent = Agent(api)
            await agent.register()
            spec: dict[str, Any] = dict.fromkeys(["model", "data", "training", "checkpoint"])
            spec["command"] = {"program": ["torchrun", "train.py"]}
            await api.submit(**spec, accelerators={"minimum": 2})
            launch = (await agent.assigned(launches)).launches[0]
        assert [list(unit.accelerators) for unit in launch.units] == [["slot-0", "slot-1"]]
        assert (launch.units_total, launch.ranks_total) == (1, 2)

    run(test())


def test_numbers_grow_by_one_with_every_change_and_not_without(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent, other = Agent(api), Agent(api, "node-b")
            await agent.register()
            await other.register()
            numbers = []
            stream = agent.watch()
            first = await stream.read()
            numbers.append(first.number)
            # A rigid job for one node: the other node's number must not move.
            created = await api.submit(
                accelerators={"minimum": 2, "topology": "SameNode"},
            )
            placed = (await api.until_stage(created.uid, "Starting")).status.units[0].node
            mine = agent if placed == "node-a" else other
            launch = (await mine.assigned(launches)).launches[0]
            await mine.started(launch)
            await mine.progressed(launch, 1, 1.0)
            await mine.progressed(launch, 2, 0.9)
            stream.cancel()
            idle = other if mine is agent else agent
            await idle.register()
            unchanged = await idle.assigned(lambda a: True)
            busy = await mine.assigned(lambda a: bool(a.launches[0].rendezvous))
            await mine.exited(launch, "Succeeded", 100)
            ended = await mine.assigned(lambda a: not a.launches)
        assert numbers == [1]
        assert unchanged.number == 1
        assert ended.number == busy.number + 1

    run(test())


def test_a_report_twice_changes_nothing_and_an_empty_one_is_no_event(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit()
            agent = Agent(api)
            await agent.register()
            launch = (await agent.assigned(launches)).launches[0]
            await agent.started(launch)
            await agent.progressed(launch, 3, 1.0)
            before = await api.until_step(created.uid, 3)
            for _ in range(3):
                answer = await agent.report()
                assert not answer.register_again
            events = await api.jobs.ListEvents(jobs_pb2.ListEventsRequest(page_size=1000))
            await agent.started(launch)
            await agent.exited(launch, "Succeeded", 100)
            await agent.exited(launch, "Succeeded", 100)
            after = await api.until_stage(created.uid, "Succeeded")
        assert events.events[-1].kind in ("JobProgressed", "CycleDecided")
        assert before.status.attempt == after.status.attempt == 1
        assert after.status.failures == 0

    run(test())


def test_what_a_job_tells_of_its_plan_stays(tmp_path: Path) -> None:
    async def listed(api: Api) -> list[admin_pb2.Observation]:
        answer = await api.admin.ListObservations(admin_pb2.ListObservationsRequest())
        return list(answer.observations)

    async def test() -> None:
        async with an_api(tmp_path) as api:
            uid = (await api.submit()).uid
            agent = Agent(api)
            await agent.register()
            (launch,) = (await agent.assigned(launches)).launches
            await agent.started(launch)
            await agent.progressed(launch, 10, 2.0)
            await api.until_step(uid, 10)
            asked = Asked("", 2, 8, 64, "fp32")
            row = PlanRow(asked, "dp2", Status.MEASURED, steps=8, iteration=0.5, offload=0.0)
            line = ObservedLine(10, row)
            batch = Batch(plans=((UnitKey(uid, launch.attempt, 0), PendingPlans((line,), 1)),))
            told = report("node-a", (1, 1), batch, {})
            await agent.report(observed=told.observed)
            (found,) = await eventually(lambda: listed(api))
            await agent.report(observed=told.observed)
            events = (await api.jobs.ListEvents(jobs_pb2.ListEventsRequest(uid=uid))).events
        async with an_api(tmp_path) as api:
            again = await listed(api)
        placed = replace(row, asked=replace(asked, model="gpt2-tiny"), placement="2")
        assert row_from_wire(found.measured) == replace(placed, date=found.at.ToJsonString())
        assert (found.uid, found.attempt, found.step) == (uid, launch.attempt, 10)
        assert [event.kind for event in events].count("PlanObserved") == 1, "told twice"
        assert again == [found]

    run(test())


def test_what_a_job_tells_is_learnt_from_and_compared_with_what_was_learnt(
    tmp_path: Path,
) -> None:
    async def fits(api: Api) -> list[admin_pb2.Fit]:
        return list((await api.admin.ListFits(admin_pb2.ListFitsRequest())).fits)

    async def test() -> None:
        async with an_api(tmp_path) as api:
            uid = (await api.submit()).uid
            agent = Agent(api)
            await agent.register()
            (launch,) = (await agent.assigned(launches)).launches
            await agent.started(launch)
            await agent.progressed(launch, 10, 2.0)
            await api.until_step(uid, 10)
            before = await fits(api)
            machine = Machine("cpu", 1, "2", "", "", "", "0")
            asked = Asked("", 2, 8, 64, "fp32")
            row = PlanRow(asked, "dp2", Status.MEASURED, steps=8, iteration=0.5, machine=machine)
            batch = Batch(
                plans=(
                    (UnitKey(uid, launch.attempt, 0), PendingPlans((ObservedLine(10, row),), 1)),
                )
            )
            await agent.report(observed=report("node-a", (1, 1), batch, {}).observed)
            (found,) = await eventually(lambda: fits(api))
        assert before == []
        assert (found.model_type, found.accelerator_type) == ("gpt2-tiny fp32 batch 8x64", "cpu")
        assert found.rows == 1
        (compared,) = found.compared
        assert (compared.uid, compared.plan, compared.placement) == (uid, "dp2", "2")
        assert compared.measured_seconds == 0.5
        assert not compared.is_news
        # Half a second is far more than its sizes lead to expect.
        assert compared.guessed_seconds < 0.1 < compared.predicted_seconds < 1.0
        assert compared.lower_seconds < compared.predicted_seconds < compared.upper_seconds

    run(test())


def test_a_node_that_is_not_known_must_register_first(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent = Agent(api)
            answer = await agent.report()
            error = await refused_stream(agent.watch())
        assert answer.register_again
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION

    run(test())


def test_wrong_fields_of_a_registration_are_all_named(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            slot = nodes_pb2.Accelerator(id="slot 0", type="", memory_bytes=-1)
            node = nodes_pb2.Node(name="Node_A", accelerators=[slot, slot])
            running = [nodes_pb2.RunningUnit(uid="", attempt=0, unit=-1)]
            error = await refusal(
                api.nodes.RegisterNode(nodes_pb2.RegisterNodeRequest(node=node, running=running))
            )
            agent = Agent(api)
            await agent.register()
            report = await refusal(
                agent.report(
                    started=[nodes_pb2.UnitStarted(uid="u", attempt=0)],
                    exited=[nodes_pb2.UnitExited(uid="u", attempt=1, unit=-2, outcome="")],
                    rendezvous=[nodes_pb2.RendezvousBound(uid="u", attempt=1, address="x")],
                )
            )
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert {
            "node.name",
            "node.accelerators",
            "node.accelerators[0].id",
            "node.accelerators[1].type",
            "node.accelerators[0].memory_bytes",
            "running[0].uid",
            "running[0].attempt",
            "running[0].unit",
        } <= set(violations(error))
        assert {
            "started[0].attempt",
            "exited[0].unit",
            "exited[0].outcome",
            "rendezvous[0].address",
        } <= set(violations(report))

    run(test())


def test_what_a_newer_agent_says_is_taken_as_the_nearest_known(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit(retries={"max": 0, "backoffSeconds": 0})
            agent = Agent(api, slots=1)
            await agent.register()
            launch = (await agent.assigned(launches)).launches[0]
            await agent.report(
                exited=[
                    nodes_pb2.UnitExited(
                        uid=launch.uid,
                        attempt=launch.attempt,
                        outcome="Evaporated",
                        reason=common_pb2.Reason(code="Entropy", message="it is gone"),
                    )
                ]
            )
            failed = await api.until_stage(created.uid, "Failed")
        assert "Entropy" in failed.status.reason.message

    run(test())


def test_a_silent_node_is_lost_and_its_agent_must_register_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            await api.admin.SetPolicy(
                admin_pb2.SetPolicyRequest(settings={"node_grace_seconds": "1"})
            )
            created = await api.submit(retries={"max": 5, "backoffSeconds": 0})
            agent = Agent(api)
            await agent.register()
            launch = (await agent.assigned(launches)).launches[0]
            await agent.started(launch)

            async def lost() -> bool:
                nodes = (await api.admin.ListNodes(admin_pb2.ListNodesRequest())).nodes
                return [node.contact for node in nodes] == ["Lost"]

            await eventually(lost)
            answer = await agent.report()
            waiting = await api.job(created.uid)
            await agent.register(
                running=[
                    nodes_pb2.RunningUnit(
                        uid=launch.uid,
                        attempt=launch.attempt,
                        unit=unit.index,
                        accelerators=unit.accelerators,
                    )
                    for unit in launch.units
                ]
            )
            # What runs there is of a fenced attempt now: it shall end before anything else starts.
            fenced = await agent.assigned(
                lambda a: any(x.intent == nodes_pb2.Launch.INTENT_END for x in a.launches)
            )
        assert answer.register_again
        assert waiting.status.stage != "Running"
        assert {each.uid for each in fenced.launches} == {created.uid}

    run(test())


def test_checkpoints_of_an_unknown_job_are_not_promised_to_go(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent = Agent(api)
            ghost = nodes_pb2.RunningUnit(uid="ghost", attempt=3, unit=0, accelerators=["slot-0"])
            await agent.register(running=[ghost])

            async def seen() -> bool:
                nodes = (await api.admin.ListNodes(admin_pb2.ListNodesRequest())).nodes
                return any(node.strays for node in nodes)

            await eventually(seen)
            purging = await refusal(
                api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid="ghost", purge=True))
            )
            await api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid="ghost"))
            ending = await agent.assigned(launches)
        assert purging.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "checkpoints purge --store STORE --uid ghost" in (purging.details() or "")
        assert [launch.intent for launch in ending.launches] == [nodes_pb2.Launch.INTENT_END]

    run(test())


def test_checkpoints_are_purged_once_however_often_that_is_asked(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit()
            agent = Agent(api)
            await agent.register()
            launch = (await agent.assigned(launches)).launches[0]
            await agent.started(launch)
            purge = jobs_pb2.WithdrawJobRequest(uid=created.uid, purge=True)
            for _ in range(3):  # while it runs
                await api.jobs.WithdrawJob(purge)
            await agent.exited(launch, "Lost")
            order = await agent.assigned(lambda a: any(x.purge for x in a.launches))
            for _ in range(3):  # while its checkpoints are being removed
                await api.jobs.WithdrawJob(purge)
            same = await agent.assigned(launches)
            await agent.report(
                exited=[
                    nodes_pb2.UnitExited(
                        uid=created.uid, attempt=order.launches[0].attempt, outcome="NeverStarted"
                    )
                ]
            )
            done = await agent.assigned(lambda a: not a.launches)
            for _ in range(3):  # when nothing is left
                await api.jobs.WithdrawJob(purge)
            rest = await agent.assigned(lambda a: True)
            listing = jobs_pb2.ListEventsRequest(uid=created.uid, page_size=1000)
            events = (await api.jobs.ListEvents(listing)).events
        assert same == order
        assert rest == done
        assert [event.kind for event in events].count("JobWithdrawn") == 1

    run(test())


def test_an_agent_that_registers_again_takes_over_its_own_stream(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent = Agent(api)
            await agent.register()
            stream = agent.watch()
            await anext(aiter(stream))
            await agent.register()
            error = await refused_stream(stream)
            again = agent.watch()
            assert (await again.read()).number == 1
            again.cancel()
        assert error.code() is grpc.StatusCode.ABORTED

    run(test())


def test_a_second_agent_of_a_node_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            first, second = Agent(api, agent_id="gpu-7/41/x"), Agent(api, agent_id="gpu-8/42/y")
            await first.register()
            stream = first.watch()
            numbers = [(await stream.read()).number]
            refused = [await refusal(second.register()) for _ in range(3)]
            refused.append(await refused_stream(second.watch()))
            unheard = await second.report()
            await api.submit()
            numbers.append((await stream.read()).number)  # the first one's stream goes on
            await first.register()  # and it may come again, at once
            stream = first.watch()
            numbers.append((await stream.read()).number)
            refused.append(await refusal(second.register()))
            stream.cancel()  # as the kernel does for a process that is killed

            async def admitted() -> bool:
                try:
                    return bool((await second.register()).term)
                except grpc.aio.AioRpcError as error:
                    return error.code() is not grpc.StatusCode.ALREADY_EXISTS

            await eventually(admitted)
            replaced = await first.report()
            now = await second.report()
        unregistered = refused.pop(3)
        assert unregistered.code() is grpc.StatusCode.FAILED_PRECONDITION
        for error in refused:
            assert error.code() is grpc.StatusCode.ALREADY_EXISTS
            assert "gpu-7/41/x" in (error.details() or "")
        assert numbers == [1, 2, 2]
        assert unheard.register_again
        assert replaced.register_again
        assert not now.register_again

    run(test())


def test_two_agents_that_come_at_once_are_not_both_let_in(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agents = [Agent(api, agent_id=f"agent-{number}") for number in range(5)]
            came = await asyncio.gather(*(a.register() for a in agents), return_exceptions=True)
            heard = [not (await agent.report()).register_again for agent in agents]
        refused = [error for error in came if isinstance(error, grpc.aio.AioRpcError)]
        assert [error.code() for error in refused] == [grpc.StatusCode.ALREADY_EXISTS] * 4
        assert sum(heard) == 1

    run(test())


def test_the_term_rises_above_what_an_agent_has_obeyed(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit()
            agent = Agent(api)
            error = await refusal(agent.register(highest_term=41))

            async def registered() -> bool:
                try:
                    await agent.register(highest_term=41)
                except grpc.aio.AioRpcError as again:
                    return again.code() is not grpc.StatusCode.UNAVAILABLE
                return True

            await eventually(registered)
            assignment = await agent.assigned(launches)
            job = await api.job(created.uid)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert agent.term == assignment.term == 42
        assert job.status.attempt == 1

    run(test())


@pytest.mark.parametrize("term", [2**33, 2**62, 2**63 - 1])
def test_an_absurd_term_is_refused_and_the_others_work_on(tmp_path: Path, term: int) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            liar, honest = Agent(api, "node-b"), Agent(api)
            await honest.register()
            refused = [await refusal(liar.register(highest_term=term)) for _ in range(3)]
            refused.append(await refusal(honest.report(applied_term=term)))
            await api.submit()
            assignment = await honest.assigned(launches)
            answer = await honest.report(applied_term=assignment.term)
        for error in refused:
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert f"obeyed term {term}" in (error.details() or "")
        assert assignment.term == 1
        assert not answer.register_again

    run(test())


def test_an_unhealthy_accelerator_gets_no_work(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent = Agent(api)
            await agent.register()
            await agent.report(
                health=[nodes_pb2.AcceleratorHealth(accelerator="slot-0", problem="Xid 79")]
            )

            async def quarantined() -> bool:
                nodes = (await api.admin.ListNodes(admin_pb2.ListNodesRequest())).nodes
                return any(node.node.accelerators[0].unhealthy == "Xid 79" for node in nodes)

            await eventually(quarantined)
            await api.submit()
            launch = (await agent.assigned(launches)).launches[0]
        assert [list(unit.accelerators) for unit in launch.units] == [["slot-1"]]

    run(test())


def test_many_agents_are_told_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agents = [Agent(api, f"node-{number}", slots=1) for number in range(12)]
            await asyncio.gather(*(agent.register() for agent in agents))
            await api.submit(
                accelerators={"minimum": 12}, training={"globalBatchSize": 12, "steps": 5}
            )
            assigned = await asyncio.gather(*(agent.assigned(launches) for agent in agents))
        ranks = sorted(a.launches[0].units[0].first_rank for a in assigned)
        assert ranks == list(range(12))

    run(test())
