"""Rows of a profile that someone imports, and fits: protobuf <-> domain."""

import re
from collections.abc import Callable, Sequence
from math import isfinite

from controlplane.domain.fit_report import ComparedRow, FitReport
from controlplane.domain.model_type import type_named, type_text
from controlplane.domain.observation import imported_subject
from controlplane.wire.translate import timestamp
from controlplane.wire.violations import Checks
from headrace.api.counted import counted
from headrace.api.feasible_plans import infeasible
from headrace.api.generated import admin_pb2, common_pb2
from headrace.api.measured_plan import row_from_wire
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import PlanRow, Status, flat, unsound_in

ROWS_MAX = 500
"""Rows of one import. They are one event; a model has far fewer plans worth measuring."""

_PLACEMENT = re.compile(r"[1-9][0-9]{0,5}(\+[1-9][0-9]{0,5})*")


def imported_rows(
    request: admin_pb2.ImportMeasurementsRequest, absurdity: Callable[[PlanRow], str]
) -> tuple[PlanRow, ...]:
    """The rows of an import.

    Args:
        request: The import.
        absurdity: What is wrong with the time of a row that is sound otherwise; empty for nothing.

    Raises:
        InvalidMessageError: Any of them is wrong; each of them with what is.
    """
    checks = Checks()
    count = len(request.rows)
    checks.wants(
        0 < count <= ROWS_MAX, "rows", f"1 to {ROWS_MAX} measured plans", f"{counted(count, 'row')}"
    )
    if not count <= ROWS_MAX:
        checks.finish()
    rows: list[PlanRow] = []
    first: dict[str, int] = {}
    for index, message in enumerate(request.rows):
        path = f"rows[{index}]"
        row = _sound(message, path, checks)
        if row is None:
            continue
        same = first.setdefault(imported_subject(row), index)
        wanted = f"another row than rows[{same}], which is about the same; leave one of them out"
        checks.wants(same == index, path, wanted, _about(row))
        problem = absurdity(row)
        if problem:
            checks.refuses(f"{path}.iteration", f"{_about(row)}: {problem}")
        rows.append(row)
    checks.finish()
    return tuple(rows)


def _about(row: PlanRow) -> str:
    return f"{row.asked.model} {row.plan} on {row.placement}"


def _sound(message: common_pb2.MeasuredPlan, path: str, checks: Checks) -> PlanRow | None:
    """The row; None if it is not one that a fit can take, which was noted then."""
    try:
        row = row_from_wire(message)
    except ValueError:
        wanted = f"a row with status {Status.MEASURED}"
        checks.wants(False, f"{path}.status", wanted, message.status)
        return None
    unsound = unsound_in(row)
    if unsound:
        got = flat(row).get(unsound)
        checks.wants(False, f"{path}.{unsound}", "what can be measured", got)
        return None
    before = checks.count
    _check_times(row, path, checks)
    _check_place(row, path, checks)
    if type_named(type_text(row.asked)) is None:
        checks.wants(
            False,
            f"{path}.model",
            "a built-in model of this release (`headrace plans` knows them), its precision, batch "
            "and length",
            type_text(row.asked),
        )
    return row if checks.count == before else None


def _check_times(row: PlanRow, path: str, checks: Checks) -> None:
    measured = row.status is Status.MEASURED
    checks.wants(measured, f"{path}.status", f"{Status.MEASURED}", str(row.status))
    seconds = row.iteration
    holds = seconds is not None and isfinite(seconds) and seconds > 0
    checks.wants(holds or not measured, f"{path}.iteration", "more than 0 seconds", seconds)
    if holds and seconds is not None:
        low, high = row.iteration_lower, row.iteration_upper
        ordered = (seconds if low is None else low) <= seconds
        ordered &= seconds <= (seconds if high is None else high)
        wanted = f"quartiles on both sides of the median, {seconds:g} s"
        checks.wants(ordered, f"{path}.iteration_lower", wanted, f"{low} and {high} s")


def _check_place(row: PlanRow, path: str, checks: Checks) -> None:
    device = row.machine.device if row.machine is not None else ""
    checks.wants(bool(device), f"{path}.device", "the accelerators' name, or cpu", device)
    threads = row.machine.cpu_threads if row.machine is not None else 1
    checks.wants(threads >= 1, f"{path}.cpu_threads", "1 or more", threads)
    lies = _PLACEMENT.fullmatch(row.placement) is not None
    checks.wants(lies, f"{path}.placement", "accelerators of each node, e.g. 4+4", row.placement)
    try:
        plan = ExecutionPlan.parse(row.plan)
    except ValueError as error:
        checks.refuses(f"{path}.plan", str(error))
        return
    if lies:
        total = sum(map(int, row.placement.split("+")))
        wanted = f"the {counted(plan.ranks, 'accelerator')} of {plan}"
        checks.wants(total == plan.ranks, f"{path}.placement", wanted, row.placement)
    known = type_named(type_text(row.asked))
    problem = (
        infeasible(known.shape, plan, global_batch_size=known.samples)
        if known is not None
        else None
    )
    if problem is not None:
        checks.refuses(f"{path}.plan", f"{row.asked.model} cannot train so: {problem.message}")


def fits_to_wire(reports: Sequence[FitReport]) -> admin_pb2.ListFitsResponse:
    """Fits, and how they stand to what was measured."""
    return admin_pb2.ListFitsResponse(fits=map(_fit_to_wire, reports))


def _fit_to_wire(report: FitReport) -> admin_pb2.Fit:
    fit, errors, since = report.fit, report.errors, report.errors_since
    return admin_pb2.Fit(
        model_type=fit.model_type,
        accelerator_type=fit.accelerator_type,
        rows=fit.rows,
        rows_since=report.rows_since,
        fitted_at=timestamp(fit.fitted_at),
        sources=[
            admin_pb2.FitSource(
                uid=each.uid, who=each.who, rows=each.rows, last_at=timestamp(each.last_at)
            )
            for each in report.sources
        ],
        error=errors.mean if errors is not None else None,
        error_median=errors.median if errors is not None else None,
        error_highest=errors.highest if errors is not None else None,
        error_since=since.mean if since is not None else None,
        held=report.held,
        coverage=fit.coverage,
        noise=fit.noise,
        outliers=[
            admin_pb2.FitOutlier(
                plan=each.row.plan,
                placement=each.row.placement,
                measured_seconds=each.row.iteration or 0.0,
                predicted_seconds=each.predicted_seconds,
                reason=each.reason,
            )
            for each in report.outliers
        ],
        compared=map(_compared_to_wire, report.compared),
        parameters=[
            admin_pb2.FitParameter(name=each.name, value=each.value, factor=each.factor)
            for each in report.parameters
        ],
        unusable=report.unusable,
    )


def _compared_to_wire(row: ComparedRow) -> admin_pb2.ComparedRow:
    return admin_pb2.ComparedRow(
        uid=row.told.uid,
        who=row.told.who,
        plan=row.told.row.plan,
        placement=row.told.row.placement,
        measured_seconds=row.told.row.iteration or 0.0,
        predicted_seconds=row.predicted,
        lower_seconds=row.lower,
        upper_seconds=row.upper,
        guessed_seconds=row.guessed,
        is_news=row.is_news,
    )
