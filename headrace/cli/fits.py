"""``headrace get fits``, ``describe fit`` and ``fit import``: what was learnt of steps, and how the
control plane comes to know what was measured apart from any job.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from headrace.api.counted import counted
from headrace.api.generated import admin_pb2
from headrace.api.measured_plan import row_to_wire
from headrace.api.profile_file import rows_in, table_rows_in
from headrace.api.profile_rows import PlanRow, Row, Status
from headrace.api.status_document import iso
from headrace.cli import views
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.get import not_there
from headrace.cli.output import Format, document, folded, note, say, table
from headrace.cli.session import Session
from headrace.cli.tables import Column, age
from headrace.client.client import Client

_COLUMNS = (
    Column("MODEL", gives_way=1),
    Column("BATCH", right=True),
    Column("IN"),
    Column("ON", gives_way=2),
    Column("ROWS", right=True),
    Column("NEW", right=True),
    Column("ERROR", right=True),
    Column("HELD", right=True),
    Column("OFF", right=True),
    Column("AGE", right=True),
)
_WIDE_COLUMNS = (
    *_COLUMNS,
    Column("MEDIAN", right=True),
    Column("HIGHEST", right=True),
    Column("ERROR OF NEW", right=True),
    Column("TOLD BY"),
)
COMPARED_COLUMNS = (
    Column("PLAN", gives_way=1),
    Column("ON", right=True, gives_way=2),
    Column("GUESSED", right=True),
    Column("MEASURED", right=True),
    Column("FITTED", right=True),
    Column("BETWEEN", right=True),
)
"""Milliseconds of a step: by sizes and the accelerator's name alone, as it was measured, and by the
fit with its interval."""

_WIDE_COMPARED_COLUMNS = (*COMPARED_COLUMNS, Column("NEW"), Column("TOLD BY"))
_OUTLIER_COLUMNS = (
    Column("PLAN", gives_way=1),
    Column("ON", right=True, gives_way=2),
    Column("MEASURED", right=True),
    Column("PREDICTED", right=True),
    Column("WHY", gives_way=3, wraps=True),
)
_PARAMETER_COLUMNS = (
    Column("PARAMETER", gives_way=1),
    Column("VALUE", right=True),
    Column("MAY BE OFF BY", right=True),
)
_SOURCE_COLUMNS = (
    Column("TOLD BY", gives_way=1),
    Column("ROWS", right=True),
    Column("AGE", right=True),
)


def get_fits(session: Session, names: Sequence[str], output: Format) -> None:
    """Prints what was learnt; of all models, or of these.

    Raises:
        CommandError: Nothing was learnt of one of them.
    """
    with session.client() as client:
        found = client.fits()
    chosen = [fit for fit in found if not names or any(_is_of(fit, name) for name in names)]
    match output:
        case Format.NAME:
            for fit in chosen:
                say(f"fit/{_key(fit)}")
        case Format.JSON | Format.YAML:
            document(views.listed([views.plain(fit) for fit in chosen], "Fit"), output)
        case _ if chosen:
            wide = output is Format.WIDE
            columns = _WIDE_COLUMNS if wide else _COLUMNS
            table(columns, [_row(fit, wide=wide) for fit in chosen], wide=wide)
        case _:
            note("no fits")
    missing = [name for name in names if not any(_is_of(fit, name) for fit in found)]
    if missing:
        raise _nothing_of(missing, found)


def describe_fits(client: Client, name: str, output: Format) -> None:
    """Prints everything about the fits of a model, of one of its types, or about one of them.

    Args:
        client: Of the control plane.
        name: Of the model, as `get fits` lists it, or what ``-o name`` prints behind ``fit/``.
        output: How.

    Raises:
        CommandError: Nothing was learnt of it.
    """
    found = client.fits()
    chosen = [fit for fit in found if _is_of(fit, name)]
    if not chosen:
        raise _nothing_of([name], found)
    match output:
        case Format.NAME:
            for fit in chosen:
                say(f"fit/{_key(fit)}")
        case Format.JSON | Format.YAML:
            document(views.listed([views.plain(fit) for fit in chosen], "Fit"), output)
        case _:
            for place, fit in enumerate(chosen):
                if place:
                    say()
                _tell(fit, wide=output is Format.WIDE)


def _nothing_of(names: Sequence[str], found: Sequence[admin_pb2.Fit]) -> CommandError:
    there = ", ".join(sorted({model_of(fit) for fit in found})) or "none"
    return not_there("fit of", names, f"there are some of {there}")


def _is_of(fit: admin_pb2.Fit, name: str) -> bool:
    return name in (_key(fit), fit.model_type, model_of(fit))


def _key(fit: admin_pb2.Fit) -> str:
    return f"{fit.model_type} on {fit.accelerator_type}"


def model_of(fit: admin_pb2.Fit) -> str:
    """Name of the model, without precision, batch and positions."""
    return fit.model_type.partition(" ")[0]


def _parts(fit: admin_pb2.Fit) -> tuple[str, str, str]:
    """Model, precision, and batch with positions."""
    model, _, rest = fit.model_type.partition(" ")
    precision, _, batch = rest.partition(" batch ")
    return model, precision, batch


def _share(message: admin_pb2.Fit, field: str) -> str:
    return f"{getattr(message, field):.1%}" if message.HasField(field) else "-"


def _row(fit: admin_pb2.Fit, *, wide: bool) -> list[str]:
    model, precision, batch = _parts(fit)
    cells = [
        model,
        batch,
        precision,
        fit.accelerator_type,
        str(fit.rows),
        str(fit.rows_since) if fit.rows_since else "",
        _share(fit, "error"),
        f"{fit.held:.0%}" if fit.HasField("held") else "-",
        str(len(fit.outliers)) if fit.outliers else "",
        _age(fit),
    ]
    if wide:
        cells += [
            _share(fit, "error_median"),
            _share(fit, "error_highest"),
            _share(fit, "error_since"),
            ", ".join(_source(each) for each in fit.sources),
        ]
    return cells


def _age(fit: admin_pb2.Fit) -> str:
    return age(time.time() - views.moment(fit.fitted_at)) if fit.HasField("fitted_at") else "-"


def compared(fit: admin_pb2.Fit) -> Iterator[tuple[admin_pb2.ComparedRow, list[str]]]:
    """What was measured of a fit's type, each with its cells under ``COMPARED_COLUMNS``: those on
    few nodes first.
    """
    for row in sorted(fit.compared, key=lambda row: (row.placement.count("+"), row.plan)):
        between = f"{_milliseconds(row.lower_seconds)} to {_milliseconds(row.upper_seconds)}"
        times = (row.guessed_seconds, row.measured_seconds, row.predicted_seconds)
        yield row, [row.plan, row.placement, *map(_milliseconds, times), between]


def _milliseconds(seconds: float) -> str:
    """With three digits that count."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _source(source: admin_pb2.FitSource | admin_pb2.ComparedRow) -> str:
    return f"{source.who} (imported)" if source.who else f"job {source.uid}"


def _tell(fit: admin_pb2.Fit, *, wide: bool) -> None:
    for label, value in _told_of(fit):
        folded(label, value)
    sources = [
        [_source(each), str(each.rows), age(time.time() - views.moment(each.last_at))]
        for each in fit.sources
    ]
    rows = [
        [*cells, "+" if row.is_news else "", _source(row)] if wide else cells
        for row, cells in compared(fit)
    ]
    outliers = [
        [
            each.plan,
            each.placement,
            f"{each.measured_seconds:.4g} s",
            f"{each.predicted_seconds:.4g} s",
            each.reason,
        ]
        for each in fit.outliers
    ]
    parameters = [
        [each.name, f"{each.value:.4g}", f"x {each.factor:.2f}"] for each in fit.parameters
    ]
    for columns, found in (
        (_SOURCE_COLUMNS, sources),
        (_WIDE_COMPARED_COLUMNS if wide else COMPARED_COLUMNS, rows),
        (_OUTLIER_COLUMNS, outliers),
        (_PARAMETER_COLUMNS, parameters),
    ):
        if found:
            say()
            table(columns, found, wide=wide)


def _told_of(fit: admin_pb2.Fit) -> list[tuple[str, str]]:
    new = f", {fit.rows_since} more since" if fit.rows_since else ""
    fitted = f"{iso(fit.fitted_at)}, {_age(fit)} ago" if fit.HasField("fitted_at") else "-"
    fields = [
        ("Fit", _key(fit)),
        ("Fitted", fitted),
        ("Rows", f"{fit.rows}{new}"),
    ]
    if fit.unusable:
        fields.append(("Not used", fit.unusable))
    if fit.HasField("error"):
        told = (
            f"{fit.error:.1%} on average, median {fit.error_median:.1%}, highest "
            f"{fit.error_highest:.1%}, of rows that it was fitted to"
        )
        fields.append(("Error", told))
    if fit.HasField("error_since"):
        fields.append(
            ("Error of new", f"{fit.error_since:.1%} on average, of rows that came since")
        )
    if fit.HasField("held"):
        fields.append(
            ("Held", f"{fit.held:.0%} of rows within intervals meant for {fit.coverage:.0%}")
        )
    fields.append(("Scatter", f"{fit.noise:.1%} of a step, beside what the parameters explain"))
    return fields


def import_files(session: Session, files: Sequence[Path], *, dry_run: bool) -> None:
    """Tells the control plane what was measured. All files are checked before anything is taken.

    Raises:
        CommandError: A file is no profile, or there is nothing in them.
    """
    found: list[Row] = []
    for file in files:
        found += _rows_of(file)
    plans = [row for row in found if isinstance(row, PlanRow)]
    rows = [row for row in plans if row.status is Status.MEASURED]
    if len(plans) > len(rows):
        without = (
            "has no figures and is" if len(plans) - len(rows) == 1 else "have no figures and are"
        )
        note(f"headrace: {counted(len(plans) - len(rows), 'plan')} {without} left out")
    kept = list({_subject(row): row for row in rows}.values())
    if len(rows) > len(kept):
        are = "is" if len(rows) - len(kept) == 1 else "are"
        note(
            f"headrace: {counted(len(rows) - len(kept), 'row')} {are} about the same plan as later "
            "ones, which count"
        )
    if not kept:
        names = ", ".join(map(str, files))
        raise CommandError(ExitCode.REFUSED, f"{names}: wanted measured plans, found none")
    with session.client() as client:
        take_in(client, kept, dry_run=dry_run)


def _subject(row: PlanRow) -> tuple[object, ...]:
    """What a row is about, on however many accelerators the run was that measured it."""
    asked, device = row.asked, row.machine.device if row.machine is not None else ""
    sizes = (asked.model, asked.precision, asked.global_batch, asked.sequence_length)
    return (*sizes, row.plan, row.placement, device)


def _rows_of(file: Path) -> Sequence[Row]:
    if not file.exists():
        raise CommandError(ExitCode.USAGE, f"{file}: there is no such file")
    try:
        return table_rows_in(file) if file.suffix == ".csv" else rows_in(file)
    except (UnicodeDecodeError, ValueError) as error:
        raise CommandError(ExitCode.REFUSED, f"nothing was imported: {error}") from error


def take_in(client: Client, rows: Sequence[PlanRow], *, dry_run: bool = False) -> None:
    """Tells the control plane these rows, and people what became of them."""
    answer = client.import_measurements(map(row_to_wire, rows), dry_run=dry_run)
    for doubt in answer.doubts:
        note(f"headrace: {doubt}")
    were = "was" if answer.known == 1 else "were"
    known = f", {answer.known} {were} known already" if answer.known else ""
    say(f"{counted(answer.taken, 'measurement')} {'would be ' if dry_run else ''}imported{known}")
