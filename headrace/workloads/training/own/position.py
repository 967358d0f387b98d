"""Where the running step is computed, for those who ask from within it."""

from collections.abc import Iterator
from contextlib import contextmanager

from headrace.api.plan import ExecutionPlan
from headrace.workloads.refusal import CANNOT_BE_TRAINED, WorkloadError
from headrace.workloads.training.position import Position

ALONE = Position(ExecutionPlan(), None, None, rank=0, replica=0, slice=0, step=1)
"""A step that is tried before ranks are connected."""

_now: Position | None = None
"""Of the process and not of a context: autograd calls blocks again from threads of its own."""


def position() -> Position:
    """Where the step is computed that asks; for the step, and for whatever it calls.

    Raises:
        WorkloadError: No step is being computed.
    """
    if _now is None:
        raise WorkloadError(
            CANNOT_BE_TRAINED,
            "wanted train.position() to be called from within a step, got a call outside; before "
            "training, mesh and plan are not known",
        )
    return _now


def take(given: Position | None) -> None:
    """Be there from now on."""
    global _now
    _now = given


@contextmanager
def trying(given: Position) -> Iterator[None]:
    """Be there while a step is tried."""
    take(given)
    try:
        yield
    finally:
        take(None)
