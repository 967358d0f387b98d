"""Predictions and what came true of them -> protobuf."""

from controlplane.domain.clock import SECOND
from controlplane.domain.forecast import ForecastOutcome, JobForecast, Span
from controlplane.domain.record import JobRecord
from controlplane.wire.translate import timestamp
from headrace.api.generated import admin_pb2, common_pb2, jobs_pb2


def tell_forecast(status: jobs_pb2.JobStatus, record: JobRecord, forecast: JobForecast) -> None:
    """Puts into a status when the job starts, as long as it has not, and ends."""
    start, end = forecast.start, forecast.end
    if start is not None and record.first_started_at is None:
        status.start.CopyFrom(_estimate(forecast, start, forecast.missing_starts))
    if end is not None:
        status.end.CopyFrom(_estimate(forecast, end, forecast.missing))


def outcome_to_wire(outcome: ForecastOutcome) -> admin_pb2.ForecastOutcome:
    """A prediction that was counted, and what came true."""
    said, started_at = outcome.forecast, outcome.started_at
    return admin_pb2.ForecastOutcome(
        uid=said.uid,
        job=outcome.job,
        queue=outcome.queue,
        accelerator_type=outcome.accelerator_type,
        started=said.started,
        end=_estimate(said, said.end, said.missing) if said.end is not None else None,
        ended_at=outcome.ended_at / SECOND,
        started_at=started_at / SECOND if started_at is not None else None,
        stage=outcome.stage.value,
    )


def _estimate(forecast: JobForecast, span: Span, missing: int) -> common_pb2.Estimate:
    return common_pb2.Estimate(
        low=span.low / SECOND,
        high=span.high / SECOND,
        median=span.median / SECOND,
        coverage=forecast.coverage,
        made_at=timestamp(forecast.made_at),
        outcomes_missing=missing,
    )
