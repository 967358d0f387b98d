"""AdminService: measurements come in, all or none, and are learnt from; fits are told."""

from dataclasses import replace
from pathlib import Path

import grpc

from headrace.api.generated import admin_pb2
from headrace.api.measured_plan import row_to_wire
from headrace.api.profile_rows import Asked, Machine, PlanRow, Status
from tests.contract.grpc.harness import Api, an_api, eventually, refusal, run, violations

ASKED = Asked("gpt2-tiny", 2, 8, 64, "fp32")
MACHINE = Machine("cpu", 1, "2.11.0", "", "", "", "0.1.0")
SECONDS = {"dp1": 0.040, "dp2": 0.022, "dp2-ga2": 0.024, "tp2": 0.030, "dp1-gc": 0.050}


def a_row(plan: str, seconds: float) -> PlanRow:
    ranks = "2" if "2" in plan.partition("-")[0] else "1"
    return PlanRow(
        ASKED, plan, Status.MEASURED, ranks, steps=20, iteration=seconds, machine=MACHINE,
        date="2026-11-26T22:07:36Z",
    )  # fmt: skip


ROWS = [a_row(plan, seconds) for plan, seconds in SECONDS.items()]


async def take_in(
    api: Api, *rows: PlanRow, dry_run: bool = False
) -> admin_pb2.ImportMeasurementsResponse:
    request = admin_pb2.ImportMeasurementsRequest(rows=map(row_to_wire, rows), dry_run=dry_run)
    answer: admin_pb2.ImportMeasurementsResponse = await api.admin.ImportMeasurements(request)
    return answer


async def observed(api: Api) -> list[admin_pb2.Observation]:
    answer = await api.admin.ListObservations(admin_pb2.ListObservationsRequest())
    return list(answer.observations)


async def the_fit(api: Api, rows: int) -> admin_pb2.Fit:
    """The one fit, once it knows so many rows."""

    async def there() -> admin_pb2.Fit | None:
        fits = (await api.admin.ListFits(admin_pb2.ListFitsRequest())).fits
        return fits[0] if fits and fits[0].rows == rows else None

    return await eventually(there)


def test_measurements_are_taken_in_with_who_and_when_and_fitted_to(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            tried = await take_in(api, *ROWS, dry_run=True)
            assert (tried.taken, await observed(api)) == (5, [])
            answer = await take_in(api, *ROWS)
            assert (answer.taken, answer.known, list(answer.doubts)) == (5, 0, [])
            fit = await the_fit(api, 5)
            again = await take_in(api, *ROWS, a_row("dp1-ga2", 0.042))
            told = await observed(api)
        assert (again.taken, again.known) == (1, 5)
        assert (fit.model_type, fit.accelerator_type) == ("gpt2-tiny fp32 batch 8x64", "cpu")
        assert fit.fitted_at.seconds > 0
        (source,) = fit.sources
        assert (source.who, source.uid, source.rows) == ("local", "", 5)
        assert {each.who for each in told} == {"local"}
        assert {each.measured.date for each in told} == {"2026-11-26T22:07:36Z"}
        assert all(each.at.seconds > 0 for each in told)
        assert fit.error < 0.1
        assert {each.name for each in fit.parameters} >= {"flops_per_second", "fixed_seconds"}
        assert all(each.value > 0 and each.factor >= 1 for each in fit.parameters)

    run(test())


def test_one_wrong_row_and_nothing_is_taken_in(tmp_path: Path) -> None:
    good = ROWS[0]
    wrong = {
        "rows[1].iteration": replace(good, plan="dp1-gc", iteration=-1.0),
        "rows[2]": good,
        "rows[3].placement": replace(good, plan="dp2", placement="1"),
        "rows[4].plan": replace(good, plan="dp3", placement="3"),
        "rows[5].model": replace(good, asked=replace(ASKED, model="gpt2-tyni")),
        "rows[6].iteration_lower": replace(good, plan="tp2", placement="2", iteration_lower=1.0),
        "rows[7].status": replace(good, plan="dp4", status=Status.OUT_OF_MEMORY),
        "rows[8].iteration": replace(good, plan="dp1-ga4", iteration=4e6),
        "rows[9].device": replace(good, machine=None),
        "rows[10].plan": replace(good, plan="quick"),
    }

    async def test() -> None:
        async with an_api(tmp_path) as api:
            error = await refusal(take_in(api, good, *wrong.values()))
            none = await refusal(take_in(api))
            many = await refusal(take_in(api, *([good] * 501)))
            assert await observed(api) == []
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        found = violations(error)
        assert set(wrong) <= set(found)
        assert "got -1.0" in found["rows[1].iteration"]
        assert "about the same; leave one of them out" in found["rows[2]"]
        assert "the 2 accelerators of dp2" in found["rows[3].placement"]
        assert "got 'gpt2-tyni fp32 batch 8x64'" in found["rows[5].model"]
        assert "all that the sizes of gpt2-tiny on cpu allow" in found["rows[8].iteration"]
        assert "1 to 500 measured plans" in violations(none)["rows"]
        assert violations(many).keys() == {"rows"}

    run(test())


def test_a_row_far_off_is_doubted_named_and_moves_no_fit(tmp_path: Path) -> None:
    off = a_row("dp1-ga2", 2.0)

    async def test() -> None:
        async with an_api(tmp_path) as api:
            await take_in(api, *ROWS)
            await the_fit(api, 5)
            answer = await take_in(api, off)
            assert answer.taken == 1
            (doubt,) = answer.doubts
            assert "dp1-ga2 on 1 takes 2 s" in doubt
            await take_in(api, a_row("dp2-z2", 0.024), a_row("dp2-z3", 0.026))
            after = await the_fit(api, 8)
        (outlier,) = after.outliers
        assert (outlier.plan, outlier.measured_seconds) == ("dp1-ga2", 2.0)
        assert "the other rows do not bear it out; imported by local" in outlier.reason
        assert outlier.predicted_seconds < 0.1
        assert after.error_median < 0.1

    run(test())
