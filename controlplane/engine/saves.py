"""Checkpoints that a job had to do without, and when that was over. Pure."""

from controlplane.domain.changing import changed
from controlplane.domain.clock import Instant
from controlplane.domain.event import CheckpointMissed
from controlplane.domain.record import JobRecord, MissedCheckpoint, Progress


def missed(record: JobRecord, event: CheckpointMissed) -> JobRecord:
    """The job once its ranks told that a checkpoint could not be made, and that they train on."""
    if event.step <= record.progress.checkpoint_step:
        return record  # A later one was committed before this was heard.
    known = record.missed
    still = known is not None and known.until is None
    since = known.since if known is not None and still else event.at
    return changed(record, missed=MissedCheckpoint(event.step, event.reason, since))


def reported(record: JobRecord, progress: Progress, *, begins: bool, at: Instant) -> JobRecord:
    """The job with newer progress; a checkpoint that was committed since is the end of the gap.

    Args:
        record: The job before.
        progress: As it is known now.
        begins: Whether this is the first that its attempt tells: what that went on from is no new
            checkpoint.
        at: When it was heard.
    """
    gap = record.missed
    newer = not begins and progress.checkpoint_step > record.progress.checkpoint_step
    if gap is not None and gap.until is None and (newer or progress.checkpoint_step >= gap.step):
        gap = changed(gap, until=at)
    return changed(record, progress=progress, missed=gap)
