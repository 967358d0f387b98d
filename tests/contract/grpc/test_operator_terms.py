"""An operator that was deposed is refused, also after a restart of the control plane."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from headrace.api.generated import jobs_pb2
from headrace.api.operator_term import DEPOSED, OPERATOR_KEY, TERM_KEY
from tests.contract.grpc.harness import Api, a_request, an_api, refusal, run

NOT_YET, PRESENT, OVER = "9", "8", "7"


def leading(term: str, operator: str = "headrace/headrace-operator") -> tuple[tuple[str, str], ...]:
    """Metadata of an operator's call."""
    return (("headrace-role", "operator"), (OPERATOR_KEY, operator), (TERM_KEY, term))


def listing(api: Api, *metadata: tuple[str, str]) -> Any:
    return api.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata)


def told(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    metadata: Any = dict(error.trailing_metadata())  # type: ignore[arg-type]
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


def test_calls_of_a_lower_term_than_was_seen_are_refused_with_the_term_in_force(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            await listing(api, *leading(OVER))
            await listing(api, *leading(PRESENT))
            refused = await refusal(listing(api, *leading(OVER)))
            submitting = await refusal(api.jobs.SubmitJob(a_request(), metadata=leading(OVER)))
            await listing(api, *leading(PRESENT))
        assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "leads under term 8 by now, and this call is of term 7" in (refused.details() or "")
        assert told(refused).reason == DEPOSED
        assert told(refused).metadata["term"] == PRESENT
        assert submitting.code() is grpc.StatusCode.FAILED_PRECONDITION

    run(test())


def test_the_term_survives_a_restart_with_and_without_a_checkpoint(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            await listing(api, *leading(PRESENT))
        async with an_api(tmp_path) as api:
            refused = await refusal(listing(api, *leading(OVER)))
            await listing(api, *leading(PRESENT))
        assert told(refused).reason == DEPOSED

    run(test())


def test_each_operator_has_terms_of_its_own_and_people_have_none(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            await listing(api, *leading(PRESENT))
            await listing(api, *leading(OVER, "elsewhere/headrace-operator"))
            await listing(api)
            # What nobody believes of a person raises no term either.
            await listing(api, *leading(NOT_YET)[1:])
            await listing(api, *leading(PRESENT))

    run(test())


@pytest.mark.parametrize("term", ["", "0", "-1", "x", "99999999999999999999"])
def test_a_term_that_is_none_is_refused(tmp_path: Path, term: str) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            refused = await refusal(listing(api, *leading(term)))
        assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "headrace-operator-term: wanted a whole number" in (refused.details() or "")

    run(test())
