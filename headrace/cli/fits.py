"""``headrace get fits``: what was learnt of steps, what it predicts, and what was measured."""

import time
from collections.abc import Iterator, Sequence

from headrace.api.generated import admin_pb2
from headrace.cli import views
from headrace.cli.get import not_there
from headrace.cli.output import Format, document, note, say, table
from headrace.cli.session import Session
from headrace.cli.tables import Column, age

COLUMNS = (
    Column("MODEL", gives_way=2),
    Column("PLAN", gives_way=1),
    Column("ON", right=True, gives_way=3),
    Column("GUESSED", right=True),
    Column("MEASURED", right=True),
    Column("FITTED", right=True),
    Column("BETWEEN", right=True),
)
"""Milliseconds of a step: by sizes and the accelerator's name alone, as it was measured, and by the
fit with its interval."""

_WIDE_COLUMNS = (
    *COLUMNS,
    Column("PRECISION"),
    Column("BATCH", right=True),
    Column("DEVICE"),
    Column("ROWS", right=True),
    Column("AGE", right=True),
    Column("JOB"),
)


def get_fits(session: Session, models: Sequence[str], output: Format) -> None:
    """Prints what is predicted beside what was measured; of all models, or of these."""
    with session.client() as client:
        found = client.fits()
    chosen = [each for each in found if not models or model_of(each) in models]
    chosen.sort(key=lambda each: (each.model_type, each.accelerator_type))
    match output:
        case Format.NAME:
            for each in chosen:
                say(f"fit/{model_of(each)}/{each.accelerator_type}")
        case Format.JSON | Format.YAML:
            document(views.listed([views.plain(each) for each in chosen], "FittedModel"), output)
        case _ if chosen:
            wide = output is Format.WIDE
            rows = [
                [*cells, *_more(each, row)] if wide else cells
                for each in chosen
                for row, cells in compared(each)
            ]
            table(_WIDE_COLUMNS if wide else COLUMNS, rows, wide=wide)
        case _:
            note("no fits")
    missing = sorted(set(models) - {model_of(each) for each in found})
    if missing:
        told = ", ".join(sorted({model_of(each) for each in found})) or "none"
        raise not_there("fit of", missing, f"there are some of {told}")


def model_of(fit: admin_pb2.FittedModel) -> str:
    """Name of the model, without precision, batch and length."""
    return fit.model_type.partition(" ")[0]


def compared(fit: admin_pb2.FittedModel) -> Iterator[tuple[admin_pb2.ComparedRow, list[str]]]:
    """What was measured of a fit's type, each with its cells under ``COLUMNS``."""
    for row in sorted(fit.compared, key=lambda row: (row.placement.count("+"), row.plan)):
        yield (
            row,
            [
                model_of(fit),
                row.plan,
                row.placement,
                milliseconds(row.guessed_seconds),
                milliseconds(row.measured_seconds),
                milliseconds(row.predicted_seconds),
                f"{milliseconds(row.lower_seconds)} to {milliseconds(row.upper_seconds)}",
            ],
        )


def milliseconds(seconds: float) -> str:
    """With three digits that count."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _more(fit: admin_pb2.FittedModel, row: admin_pb2.ComparedRow) -> list[str]:
    _, precision, _, size = fit.model_type.split(" ")
    told_since = "+" if row.is_news else ""
    return [
        precision,
        size,
        fit.accelerator_type,
        f"{fit.rows}{told_since}",
        age(time.time() - views.moment(fit.at)),
        row.uid,
    ]
