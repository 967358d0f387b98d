"""Snapshots of live clusters, as `headrace snapshot` writes them."""

from pathlib import Path

from pydantic import ValidationError

from controlplane.domain.clock import Instant
from controlplane.domain.codec import load
from controlplane.engine.state import ClusterState


def read_snapshot(path: Path) -> ClusterState:
    """The cluster in a file that `headrace snapshot -o FILE` wrote.

    Raises:
        ValueError: It is no such file, or one of another version.
        OSError: It cannot be read.
    """
    try:
        state: ClusterState = load(path.read_bytes(), ClusterState)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        field = ".".join(map(str, found["loc"]))
        raise ValueError(
            f"{path}: {f'{field}: ' if field else ''}{found['msg']}; wanted what `headrace "
            "snapshot -o FILE` of this version wrote"
        ) from error
    return state


def latest(state: ClusterState) -> Instant:
    """The last instant that a snapshot speaks of: virtual time goes on from there."""
    times = [node.last_change_at for node in state.nodes.values()]
    for record in state.jobs.values():
        times += [record.job.submitted_at, record.progress.at, record.finished_at or Instant(0)]
        times += [record.idle_since, record.reconfigured_at, record.suspended_at]
        if record.attempt is not None:
            times += [record.attempt.started_at, record.attempt.intent_at]
    return max(times, default=Instant(0))
