"""``headrace get observations`` and ``get switches``: what was measured of each model."""

import time
from collections.abc import Collection, Sequence

from headrace.api.generated import admin_pb2
from headrace.api.measured_plan import row_from_wire
from headrace.api.profile_rows import Status, flat
from headrace.cli import views
from headrace.cli.get import not_there
from headrace.cli.output import Format, document, note, say, table
from headrace.cli.plan_figures import FIGURES, figures
from headrace.cli.session import Session
from headrace.cli.tables import Column, age

_COLUMNS = (
    Column("MODEL", gives_way=2),
    Column("PLAN", gives_way=1),
    Column("ON", right=True, gives_way=3),
    Column("BATCH", right=True),
    *FIGURES,
)
_WIDE_COLUMNS = (
    *_COLUMNS,
    Column("STEPS", right=True),
    Column("AGE", right=True),
    Column("LENGTH", right=True),
    Column("PRECISION"),
    Column("DEVICE"),
    Column("JOB"),
)


_SWITCH_COLUMNS = (
    Column("MODEL", gives_way=1),
    Column("ACC", right=True),
    Column("HOW"),
    Column("COUNT", right=True),
    Column("MEDIAN", right=True),
    Column("P90", right=True),
    Column("HIGHEST", right=True),
    Column("AGE", right=True),
)


def get_switches(session: Session, models: Sequence[str], output: Format) -> None:
    """Prints for how long changes of plan or place kept jobs from training."""
    with session.client() as client:
        found = client.switch_prices()
    chosen = [each for each in found if not models or each.model in models]
    chosen.sort(key=lambda each: (each.model, each.accelerators_before, each.accelerators_after))
    match output:
        case Format.NAME:
            for each in chosen:
                change = f"{each.accelerators_before}-{each.accelerators_after}"
                say(f"switch/{each.model}/{change}/{each.kind.lower()}")
        case Format.JSON | Format.YAML:
            document(views.listed([views.plain(each) for each in chosen], "SwitchPrice"), output)
        case _ if chosen:
            wide = output is Format.WIDE
            table(_SWITCH_COLUMNS, [_switch_row(each) for each in chosen], wide=wide)
        case _:
            note("no switches")
    _check_all_there("switch", models, {each.model for each in found})


def _switch_row(each: admin_pb2.SwitchPrice) -> list[str]:
    seconds = (each.median_seconds, each.p90_seconds, each.highest_seconds)
    return [
        each.model,
        f"{each.accelerators_before} -> {each.accelerators_after}",
        each.kind.lower(),
        str(each.count),
        *(f"{value:.2f} s" for value in seconds),
        age(time.time() - views.moment(each.last_at)),
    ]


def _check_all_there(kind: str, models: Sequence[str], there: Collection[str]) -> None:
    missing = sorted(set(models) - set(there))
    if missing:
        told = ", ".join(sorted(there)) or "none"
        raise not_there(f"{kind} of", missing, f"there are some of {told}")


def get_observations(session: Session, models: Sequence[str], output: Format) -> None:
    """Prints the newest about each plan; of all models, or of these."""
    with session.client() as client:
        found = client.observations()
    chosen = [each for each in found if not models or each.measured.model in models]
    chosen.sort(key=lambda each: (each.measured.model, each.measured.accelerators))
    match output:
        case Format.NAME:
            for each in chosen:
                say(f"observation/{each.measured.model}/{each.measured.plan}")
        case Format.JSON | Format.YAML:
            # In the form in which `headrace profile` writes its rows.
            documents = [
                {"job": each.uid, "attempt": each.attempt, "step": each.step}
                | flat(row_from_wire(each.measured))
                for each in chosen
            ]
            document(views.listed(documents, "Observation"), output)
        case _ if chosen:
            wide = output is Format.WIDE
            rows = [_row(each, wide=wide) for each in chosen]
            table(_WIDE_COLUMNS if wide else _COLUMNS, rows, wide=wide)
            for each in chosen:
                row = each.measured
                if row.status != Status.MEASURED:
                    say(f"{row.model} {row.plan}: {row.status}: {row.reason}")
        case _:
            note("no observations")
    _check_all_there("observation", models, {each.measured.model for each in found})


def _row(each: admin_pb2.Observation, *, wide: bool) -> list[str]:
    row = row_from_wire(each.measured)
    asked = row.asked
    cells = [asked.model, row.plan, row.placement, str(asked.global_batch), *figures(row)]
    if wide:
        cells += [
            str(row.steps),
            age(time.time() - views.moment(each.at)),
            str(asked.sequence_length),
            asked.precision,
            row.machine.device if row.machine else "",
            each.uid,
        ]
    return cells
