"""The one table of a job's stages. Whatever is not in it cannot happen.

    Queued -> Starting -> Running -> Succeeded
      ^  ^        |          |
      |  |        +----------+--> Stopping --> Queued | Suspended   (planned: checkpoint, release)
      |  +-- BackingOff <----+--> Failed                            (an attempt failed)

A job that is withdrawn leaves from any stage once its accelerators are released.
"""

from enum import StrEnum


class Stage(StrEnum):
    """Where a job stands."""

    QUEUED = "Queued"
    SUSPENDED = "Suspended"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    BACKING_OFF = "BackingOff"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


HOLDING = frozenset({Stage.STARTING, Stage.RUNNING, Stage.STOPPING})
"""Stages in which the job has an attempt that may hold accelerators."""

IDLE = frozenset({Stage.QUEUED, Stage.SUSPENDED, Stage.BACKING_OFF})
"""Stages in which the job holds nothing and may still run."""

FINISHED = frozenset({Stage.SUCCEEDED, Stage.FAILED})

TRANSITIONS: dict[Stage, frozenset[Stage]] = {
    Stage.QUEUED: frozenset({Stage.STARTING, Stage.SUSPENDED, Stage.FAILED}),
    Stage.SUSPENDED: frozenset({Stage.QUEUED, Stage.FAILED}),
    Stage.STARTING: frozenset(
        {
            Stage.RUNNING,
            Stage.STOPPING,
            Stage.SUCCEEDED,
            Stage.QUEUED,
            Stage.SUSPENDED,
            Stage.BACKING_OFF,
            Stage.FAILED,
        }
    ),
    Stage.RUNNING: frozenset(
        {
            Stage.STOPPING,
            Stage.SUCCEEDED,
            Stage.QUEUED,
            Stage.SUSPENDED,
            Stage.BACKING_OFF,
            Stage.FAILED,
        }
    ),
    Stage.STOPPING: frozenset(
        {Stage.QUEUED, Stage.SUSPENDED, Stage.SUCCEEDED, Stage.BACKING_OFF, Stage.FAILED}
    ),
    Stage.BACKING_OFF: frozenset({Stage.QUEUED, Stage.STARTING, Stage.SUSPENDED, Stage.FAILED}),
    Stage.SUCCEEDED: frozenset(),
    Stage.FAILED: frozenset(),
}


class InvalidTransitionError(Exception):
    """A job was about to move against the table; carries what led there."""


def check(before: Stage, then: Stage, story: str) -> Stage:
    """Returns ``then`` if a job may go there from ``before``.

    Raises:
        InvalidTransitionError: The table does not know the step; the message tells ``story``.
    """
    if then != before and then not in TRANSITIONS[before]:
        raise InvalidTransitionError(f"{before} -> {then} is not in the lifecycle table: {story}")
    return then
