"""SubmitJob and WithdrawJob: what is accepted, under which identity, and what is refused why."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.api.generated import admin_pb2, common_pb2, jobs_pb2
from tests.contract.grpc.harness import (
    a_request,
    an_api,
    eventually,
    manifest,
    refusal,
    run,
    violations,
)

OPERATOR = (("headrace-role", "operator"),)


def an_operators_request(
    uid: str, generation: int, name: str = "train", **spec: object
) -> jobs_pb2.SubmitJobRequest:
    request = a_request(name, **spec)
    request.uid = uid
    request.generation = generation
    return request


def test_a_job_is_created_once_and_then_unchanged(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            first = await api.submit()
            again = await api.submit()
            events = await api.jobs.ListEvents(jobs_pb2.ListEventsRequest(uid=first.uid))
        assert (first.generation, first.result) == (1, "created")
        assert (again.uid, again.generation, again.result) == (first.uid, 1, "unchanged")
        assert [e.kind for e in events.events].count("JobSubmitted") == 1

    run(test())


def test_a_created_job_is_found_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            for number in range(20):
                created = await api.submit(f"job-{number}")
                job = await api.job(created.uid)
                by_name = await api.jobs.GetJob(
                    jobs_pb2.GetJobRequest(selector=jobs_pb2.JobSelector(name=f"job-{number}"))
                )
                assert job.name == f"job-{number}"
                assert by_name.job.uid == created.uid

    run(test())


def test_another_spec_is_the_next_generation(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            first = await api.submit()
            second = await api.submit(priority=5)
            job = await api.job(first.uid)
        assert (second.uid, second.generation, second.result) == (first.uid, 2, "updated")
        assert (job.priority, job.generation) == (5, 2)

    run(test())


def test_one_name_submitted_by_many_at_once_gets_one_uid(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            answers = await asyncio.gather(*(api.submit() for _ in range(25)))
            varied = await asyncio.gather(*(api.submit(priority=n) for n in range(1, 11)))
            job = await api.job(answers[0].uid)
        assert len({answer.uid for answer in answers}) == 1
        assert sorted(answer.result for answer in answers) == ["created"] + 24 * ["unchanged"]
        assert {answer.uid for answer in varied} == {answers[0].uid}
        assert sorted(answer.generation for answer in varied) == list(range(2, 12))
        assert job.generation == 11

    run(test())


def test_every_wrong_field_is_named_with_what_came(tmp_path: Path) -> None:
    async def test() -> None:
        wrong = manifest(accelerators={"minimun": 1, "maximum": "two"})
        async with an_api(tmp_path) as api:
            error = await refusal(
                api.jobs.SubmitJob(jobs_pb2.SubmitJobRequest(manifest_json=json.dumps(wrong)))
            )
            not_json = await refusal(
                api.jobs.SubmitJob(jobs_pb2.SubmitJobRequest(manifest_json="{"))
            )
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        found = violations(error)
        assert "minimum" in found["spec.accelerators.minimun"]
        assert "two" in found["spec.accelerators.maximum"]
        assert "manifest_json" in violations(not_json)

    run(test())


def test_what_cannot_be_honoured_is_refused_with_a_reason(tmp_path: Path) -> None:
    async def test() -> None:
        spec: dict[str, Any] = {
            "model": None,
            "command": {"program": ["torchrun", "train.py"], "image": "ghcr.io/x"},
            "data": None,
            "training": None,
            "checkpoint": None,
            "accelerators": {"minimum": 1},
        }
        async with an_api(tmp_path) as api:
            error = await refusal(api.jobs.SubmitJob(a_request(**spec)))
        assert "containers" in violations(error)["spec.command.image"]

    run(test())


def test_fields_that_a_job_keeps_for_life_cannot_change(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            await api.submit()
            error = await refusal(
                api.jobs.SubmitJob(
                    a_request(
                        training={"globalBatchSize": 16, "steps": 100, "seed": 3},
                        checkpoint={"store": "/elsewhere"},
                    )
                )
            )
            job = await api.submit()
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert set(violations(error)) == {
            "spec.training.globalBatchSize",
            "spec.training.seed",
            "spec.checkpoint.store",
        }
        assert "from 8 to 16" in violations(error)["spec.training.globalBatchSize"]
        assert job.result == "unchanged"

    run(test())


def test_a_queue_takes_jobs_of_its_namespaces_only(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            queue = common_pb2.Queue(name="research", namespaces=["team-a", "team-b"])
            moved = await api.submit()
            early = await api.submit("early", queue="research")
            await api.admin.PutQueue(admin_pb2.PutQueueRequest(queue=queue))
            refused = [
                await refusal(api.submit("train", queue="research")),
                await refusal(api.submit("other", queue="research")),
                await refusal(
                    api.jobs.SubmitJob(
                        an_operators_request("uid-1", 1, "other", queue="research"),
                        metadata=OPERATOR,
                    )
                ),
            ]
            again = await api.submit("early", queue="research")
            theirs = manifest("theirs", queue="research")
            theirs["metadata"]["namespace"] = "team-b"
            request = jobs_pb2.SubmitJobRequest(manifest_json=json.dumps(theirs))
            taken = await api.jobs.SubmitJob(request)
        assert moved.result == early.result == taken.result == "created"
        # It was taken before, and a manifest that is applied again changes nothing.
        assert again.result == "unchanged"
        for error in refused:
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            sentence = violations(error)["spec.queue"]
            assert "takes jobs of the namespaces team-a, team-b only" in sentence
            assert "is in default; name another queue" in sentence

    run(test())


def test_a_dry_run_checks_everything_and_accepts_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            request = a_request()
            request.dry_run = True
            created = await api.jobs.SubmitJob(request)
            nothing = await api.jobs.ListJobs(jobs_pb2.ListJobsRequest())
            await api.submit()
            changed = a_request(priority=3)
            changed.dry_run = True
            updated = await api.jobs.SubmitJob(changed)
            wrong = a_request(model={"name": "vit"})
            wrong.dry_run = True
            error = await refusal(api.jobs.SubmitJob(wrong))
            job = (await api.jobs.ListJobs(jobs_pb2.ListJobsRequest())).jobs[0]
        assert created.result == "created"
        assert not nothing.jobs
        assert (updated.result, updated.generation) == ("updated", 2)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (job.generation, job.priority) == (1, 0)

    run(test())


def test_a_withdrawn_name_becomes_a_new_uid(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            first = await api.submit()
            for _ in range(2):
                await api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid=first.uid))
            second = await api.submit()

            async def gone() -> bool:
                error = await refusal(
                    api.jobs.GetJob(
                        jobs_pb2.GetJobRequest(selector=jobs_pb2.JobSelector(uid=first.uid))
                    )
                )
                return error.code() is grpc.StatusCode.NOT_FOUND

            async def forgotten() -> bool:
                listed = await api.jobs.ListJobs(jobs_pb2.ListJobsRequest())
                return [job.uid for job in listed.jobs] == [second.uid]

            await eventually(forgotten)
            assert await gone()
            # Once more, after it was forgotten: still harmless.
            await api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid=first.uid))
            unknown = await refusal(
                api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid="no-such-uid"))
            )
        assert second.result == "created"
        assert second.uid != first.uid
        assert unknown.code() is grpc.StatusCode.NOT_FOUND

    run(test())


def test_a_manifest_read_back_is_only_for_its_own_uid(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            first = await api.submit()
            read_back = manifest()
            read_back["metadata"]["uid"] = first.uid
            read_back["metadata"]["generation"] = 1
            text = json.dumps(read_back)
            same = await api.jobs.SubmitJob(jobs_pb2.SubmitJobRequest(manifest_json=text))
            await api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid=first.uid))
            error = await refusal(api.jobs.SubmitJob(jobs_pb2.SubmitJobRequest(manifest_json=text)))
        assert same.result == "unchanged"
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert first.uid in (error.details() or "")

    run(test())


def test_an_operators_job_is_idempotent_by_uid_and_generation(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            submit = api.jobs.SubmitJob
            first = await submit(an_operators_request("k8s-1", 3), metadata=OPERATOR)
            again = await submit(an_operators_request("k8s-1", 3), metadata=OPERATOR)
            late = await submit(an_operators_request("k8s-1", 2, priority=9), metadata=OPERATOR)
            newer = await submit(an_operators_request("k8s-1", 7, priority=9), metadata=OPERATOR)
            job = await api.job("k8s-1")
            for field, request in (
                ("generation", an_operators_request("k8s-2", 0, "other")),
                ("uid", an_operators_request("k8s 2", 1, "other")),
                ("generation", an_operators_request("", 4, "other")),
            ):
                error = await refusal(submit(request, metadata=OPERATOR))
                assert field in violations(error)
        assert [a.result for a in (first, again, late, newer)] == [
            "created",
            "unchanged",
            "unchanged",
            "updated",
        ]
        assert (job.generation, job.owner, job.priority) == (7, "Kubernetes", 9)

    run(test())


def test_only_an_operator_makes_pods_and_a_job_has_them_from_then_on(tmp_path: Path) -> None:
    claim = {"name": "v", "mountPath": "/v", "persistentVolumeClaim": {"claimName": "disk"}}
    spec: dict[str, Any] = {"volumes": [claim], "checkpoint": {"store": "/v/jobs"}}

    async def test() -> None:
        async with an_api(tmp_path) as api:
            request = an_operators_request("k8s-1", 1, **spec)
            assert "mounts nothing" in str(
                (await refusal(api.jobs.SubmitJob(request, metadata=OPERATOR))).details()
            )
            request.own_pod = True
            await api.jobs.SubmitJob(request, metadata=OPERATOR)
            job = await api.job("k8s-1")
            assert job.attempt_in_pods == 0, "it has no attempt yet"
            without_uid = jobs_pb2.SubmitJobRequest(
                manifest_json=request.manifest_json, own_pod=True
            )
            error = await refusal(api.jobs.SubmitJob(without_uid))
            assert "only an operator makes pods" in str(error.details())

    run(test())


def test_objects_of_kubernetes_are_read_only_for_people(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            await api.jobs.SubmitJob(an_operators_request("k8s-1", 1), metadata=OPERATOR)
            changed = await refusal(api.jobs.SubmitJob(a_request(priority=3)))
            withdrawn = await refusal(
                api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid="k8s-1"))
            )
            await api.submit("mine")
            taken = await refusal(
                api.jobs.SubmitJob(an_operators_request("k8s-2", 1, "mine"), metadata=OPERATOR)
            )
            await api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid="k8s-1"), metadata=OPERATOR)
        assert changed.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "kubectl apply" in (changed.details() or "")
        assert withdrawn.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "kubectl delete trainingjob train -n default" in (withdrawn.details() or "")
        assert taken.code() is grpc.StatusCode.ALREADY_EXISTS

    run(test())


def test_a_caller_who_goes_away_leaves_a_state_that_makes_sense(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            calls = [api.jobs.SubmitJob(a_request(f"job-{n}")) for n in range(20)]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            answers = [await api.submit(f"job-{n}") for n in range(20)]
            listed = await api.jobs.ListJobs(jobs_pb2.ListJobsRequest())
        assert {answer.result for answer in answers} <= {"created", "unchanged"}
        assert sorted(job.uid for job in listed.jobs) == sorted(a.uid for a in answers)

    run(test())


def test_a_password_in_a_url_is_refused_and_appears_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            request = a_request(checkpoint={"store": "s3://AKIA:hush@bucket/jobs"})
            error = await refusal(api.jobs.SubmitJob(request))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "secretKeyRef" in violations(error)["spec.checkpoint.store"]
        assert "hush" not in repr(error)

    run(test())
    told = capfd.readouterr()
    assert "hush" not in told.out + told.err
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"hush" in p.read_bytes()]


def test_checkpoints_that_were_kept_are_not_said_to_be_purged_afterwards(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            uid = (await api.submit()).uid
            for _ in range(2):
                await api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid=uid))

            async def refused() -> grpc.aio.AioRpcError | None:
                try:
                    await api.job(uid)
                except grpc.aio.AioRpcError:
                    purge = jobs_pb2.WithdrawJobRequest(uid=uid, purge=True)
                    return await refusal(api.jobs.WithdrawJob(purge))
                return None

            error = await eventually(refused)
            await api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid=uid))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"checkpoints purge --store STORE --uid {uid}" in (error.details() or "")

    run(test())
