"""Why a job waits, in lines that a narrow terminal shows whole."""

import time

from controlplane.domain.reason import ReasonCode
from headrace.api.generated import admin_pb2, common_pb2, jobs_pb2
from headrace.cli.explain import sentences


def test_a_waiting_jobs_lines_fit_eighty_columns_and_say_all() -> None:
    told = admin_pb2.ExplainResponse(
        stage="Queued",
        reason=common_pb2.Reason(
            code="BehindEarlierJob",
            message="wants 64 h100 accelerators; research/pretrain-large wants 512 before it",
            wanted=64,
            type="h100",
            more_holders=1203,
            behind="first",
        ),
        holders=[
            admin_pb2.Holder(uid="u" * 36, namespace="research", name="b" * 40, accelerators=256)
        ],
        position=8000,
    )
    job = jobs_pb2.Job(namespace="research", name="finetune", queue="default")
    lines = sentences(job, told)
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for said in (
        "research/pretrain-large wants 512 before it",
        "wanted 64 h100 accelerators, there are 0 for it: 64 short",
        f"research/{'b' * 40} holds 256 ({'u' * 36})",
        "and 1203 more jobs hold some",
        "place 8000 among the waiting jobs of queue default",
    ):
        assert said in text


def test_plans_that_do_not_fit_are_named_with_the_type_and_by_how_much() -> None:
    told = admin_pb2.ExplainResponse(stage="Running", more_that_do_not_fit=2)
    told.does_not_fit.add(plan="dp1", type="h100", message="does not fit by 21.5 GiB: ...")
    assert sentences(jobs_pb2.Job(name="j"), told)[1:] == [
        "  dp1 is not tried on h100: does not fit by 21.5 GiB: ...",
        "  and 2 more do not fit",
    ]


def test_a_job_that_backs_off_says_when_it_is_tried_again() -> None:
    told = admin_pb2.ExplainResponse(stage="BackingOff", position=1)
    told.retry_at.FromSeconds(int(time.time()) + 3600)
    assert sentences(jobs_pb2.Job(name="j"), told)[-1] == "  is tried again in 59m at the earliest"


def test_a_job_that_grows_lacks_nothing() -> None:
    told = admin_pb2.ExplainResponse(stage="Stopping")
    told.reason.code, told.reason.message = "GrownIntoFreeAccelerators", "dp2 -> dp4"
    told.reason.wanted, told.reason.available = 4, 2
    assert sentences(jobs_pb2.Job(name="j"), told)[1:] == [
        "  GrownIntoFreeAccelerators: dp2 -> dp4"
    ]


def test_every_reason_that_counts_what_is_missing_says_it() -> None:
    """Of the domain's codes those that come first, why a job waits, and have numbers."""
    numberless = {"QueueMissing", "BatchNotDivisible", "ControlPlaneRecovering", "Suspended"}
    numberless |= {"QueueNotForNamespace"}
    numberless |= {"BackingOff", "PolicyRefused", "DoesNotFit", "WaitingForFasterAccelerators"}
    codes = [code.value for code in ReasonCode]
    for code in set(codes[: codes.index("Started")]) - numberless:
        told = admin_pb2.ExplainResponse(reason=common_pb2.Reason(code=code, wanted=4, available=1))
        assert "  wanted 4 accelerators, there are 1 for it: 3 short" in sentences(
            jobs_pb2.Job(name="j"), told
        )


def test_the_lines_that_a_rank_wrote_last_stay_lines() -> None:
    told = admin_pb2.ExplainResponse(stage="Failed")
    told.reason.code, told.reason.message = "RankFailed", "exit 1\nTraceback:\n  File x"
    assert sentences(jobs_pb2.Job(name="j"), told)[1:] == [
        "  RankFailed: exit 1",
        "Traceback:",
        "  File x",
    ]
