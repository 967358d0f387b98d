"""What was measured of plans, as columns of a table."""

from collections.abc import Iterator

from headrace.api.memory import GIB
from headrace.api.profile_rows import PlanRow
from headrace.cli.tables import Column

FIGURES = (
    Column("MS", right=True),
    Column("TOKENS/S", right=True),
    Column("TFLOP/S", right=True),
    Column("SHARE", right=True),
    Column("PEAK GIB", right=True),
)


def figures(row: PlanRow) -> Iterator[str]:
    """A row's cells under ``FIGURES``; a share is of the device's peak."""
    yield number(row.iteration, 1000, 1)
    yield number(row.tokens_rate, 1, 0)
    yield number(row.flops_rate, 1e-12, 1 if (row.flops_rate or 0) >= 1e11 else 3)
    yield f"{row.share_of_peak:.1%}" if row.share_of_peak is not None else ""
    yield number(row.peak_process, 1 / GIB, 2)


def number(value: float | None, factor: float, digits: int) -> str:
    """A figure in another unit; empty if it was not measured."""
    return f"{value * factor:.{digits}f}" if value is not None else ""
