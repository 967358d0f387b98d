"""``headrace logs``: a rank's output, over restarts of the control plane and new attempts.

A stream that broke off is asked for again from the beginning, and what was shown already is
skipped: the last bytes shown are looked for in what is kept, because the server counts no bytes
and may have dropped the oldest ones in between.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from headrace.api.generated import jobs_pb2
from headrace.cli import views
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.get import find_job
from headrace.cli.output import note, note_outage
from headrace.cli.session import Session
from headrace.cli.wait import FINISHED
from headrace.client.client import Client
from headrace.client.trouble import CallError, Kind

_ANCHOR_BYTES = 2048
_PATIENCE_SECONDS = 300.0
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to show: of which rank and attempt (0: the newest), how much, and whether to go on."""

    rank: int = 0
    attempt: int = 0
    tail_lines: int = -1
    follow: bool = False


def logs(session: Session, name: str, namespace: str, wanted: Wanted) -> None:
    """Writes a rank's output to stdout.

    Raises:
        CommandError: The job has not started, or not that attempt, and is not to be followed.
    """
    with session.client(patience_seconds=30.0) as client:
        job = find_job(client, name, namespace)
        if not wanted.follow:
            if not job.status.attempt:
                raise CommandError(
                    ExitCode.FAILED,
                    f"{name} has not started yet, so there is no output; -f waits for it",
                )
            if wanted.attempt > job.status.attempt:
                raise CommandError(
                    ExitCode.NOT_FOUND,
                    f"wanted an attempt of {name} between 1 and {job.status.attempt}, got "
                    f"{wanted.attempt}; -f waits for it",
                )
            told = False
            for piece in client.stream_logs(
                job.uid,
                attempt=wanted.attempt,
                unit=unit_of(job, wanted.rank),
                tail_lines=wanted.tail_lines,
                follow=False,
            ):
                _write(piece.data)
                if piece.note:
                    note(piece.note)
                told = told or bool(piece.data or piece.note)
            if not told:
                note(_nothing(job, wanted))
            return
        _follow(client, job.uid, wanted)


def _nothing(job: jobs_pb2.Job, wanted: Wanted) -> str:
    """Why there may be no output."""
    attempt = wanted.attempt or job.status.attempt
    status = f"{job.status.stage}: {views.reason(job.status.reason)}"
    return f"rank {wanted.rank} of attempt {attempt} wrote nothing; the job is {status}"


def unit_of(job: jobs_pb2.Job, rank: int) -> int:
    """The launch unit whose output holds that rank's.

    Units of one rank each are numbered like ranks; a unit of several ranks is known while it runs.

    Raises:
        CommandError: The job has fewer ranks.
    """
    units = sorted(job.status.units, key=lambda unit: unit.first_rank)
    if not units:
        return rank
    ranks = units[-1].first_rank + max(1, len(units[-1].accelerators))
    if rank >= ranks:
        raise CommandError(ExitCode.NOT_FOUND, f"{job.name} has ranks 0 to {ranks - 1}, not {rank}")
    return next(unit.index for unit in reversed(units) if unit.first_rank <= rank)


def _follow(client: Client, uid: str, wanted: Wanted) -> None:
    """Shows one attempt after the other until the job is finished.

    Raises:
        CommandError: It finished without the attempt that was wanted.
    """
    attempt, tail = wanted.attempt, wanted.tail_lines
    while True:
        job = _job_with_attempt(client, uid, attempt or 1)
        if job is None and wanted.attempt:
            raise CommandError(ExitCode.NOT_FOUND, f"the job ended without an attempt {attempt}")
        if job is None:
            return
        attempt = attempt or job.status.attempt
        if job.status.attempt > attempt or not job.status.units:
            unit = wanted.rank
        else:
            unit = _unit_if_there(job, wanted.rank)
        _follow_attempt(client, uid, attempt, unit, tail)
        if wanted.attempt:
            return
        job = _job_with_attempt(client, uid, attempt + 1)
        if job is None:
            return
        attempt, tail = job.status.attempt, -1
        note(f"--- attempt {attempt}: {job.status.plan or 'starting'} ---")


def _unit_if_there(job: jobs_pb2.Job, rank: int) -> int:
    """The rank's unit; after a reconfiguration to fewer ranks, that of the last rank there is."""
    last = max((unit.first_rank + max(1, len(unit.accelerators)) - 1) for unit in job.status.units)
    if rank > last:
        note(f"rank {rank} is gone under {job.status.plan or 'this plan'}; showing rank {last}")
    return unit_of(job, min(rank, last))


def _job_with_attempt(client: Client, uid: str, attempt: int) -> jobs_pb2.Job | None:
    """The job once it has started that attempt; None if it ended or went before that."""
    for message in client.watch_jobs(jobs_pb2.JobSelector(uid=uid), on_outage=note_outage):
        if message.kind == jobs_pb2.WatchJobsResponse.KIND_GONE:
            return None
        if message.kind == jobs_pb2.WatchJobsResponse.KIND_SYNCED:
            continue
        if message.job.status.attempt >= attempt:
            return message.job
        if message.job.status.stage in FINISHED or message.job.status.withdrawn:
            return None
    return None


def _follow_attempt(client: Client, uid: str, attempt: int, unit: int, tail_lines: int) -> None:
    """Writes the output of one attempt until it ends; asks again whenever the stream breaks.

    A stream also ends when the node's agent is away for a moment, so the end of a stream is the
    end of the attempt only if the job says so.
    """
    shown = b""
    waited = 0.0
    notes: set[str] = set()
    while True:
        again = bool(shown)
        try:
            stream = client.stream_logs(
                uid,
                attempt=attempt,
                unit=unit,
                tail_lines=-1 if again else tail_lines,
                follow=True,
            )
            limit = _kept_bytes(client, uid, attempt, unit) if again else 0
            for data in unseen(_data_of(stream, notes), shown, limit):
                _write(data)
                shown = (shown + data)[-_ANCHOR_BYTES:]
                waited = 0.0
            if not _goes_on(client, uid, attempt):
                return
        except CallError as trouble:
            if trouble.kind is Kind.NOT_FOUND:
                return
            passing = trouble.kind in (Kind.UNREACHABLE, Kind.TIMED_OUT)
            if not passing or waited >= _PATIENCE_SECONDS:
                raise
            if waited == _PAUSE_SECONDS:  # once of each outage that is more than a blink
                note_outage(trouble)
            waited += _PAUSE_SECONDS
        time.sleep(_PAUSE_SECONDS)


def _goes_on(client: Client, uid: str, attempt: int) -> bool:
    """Whether that attempt still holds accelerators, so that more output may come."""
    status = client.get_job_by_uid(uid).status
    return status.attempt == attempt and bool(status.units)


def _data_of(stream: Iterator[jobs_pb2.StreamLogsResponse], told: set[str]) -> Iterator[bytes]:
    """The data of a stream; each of its notes is told once."""
    for piece in stream:
        if piece.data:
            yield piece.data
        if piece.note and piece.note not in told:
            told.add(piece.note)
            note(piece.note)


def _kept_bytes(client: Client, uid: str, attempt: int, unit: int) -> int:
    """How much is kept now: the most that must be searched for what was shown already."""
    kept = client.stream_logs(uid, attempt=attempt, unit=unit, tail_lines=-1, follow=False)
    return sum(len(piece.data) for piece in kept)


def unseen(pieces: Iterator[bytes], shown: bytes, limit: int) -> Iterator[bytes]:
    """What comes after ``shown`` in a stream that begins anew.

    Args:
        pieces: The stream.
        shown: Last bytes that were shown before; nothing is skipped if empty.
        limit: Bytes within which they must come up; if they do not, they are no longer kept, and
            everything is shown.
    """
    searched = b""
    searching = bool(shown)
    for piece in pieces:
        if not searching:
            yield piece
            continue
        searched += piece
        # The first place, not the last: showing a line twice is better than losing one.
        at = searched.find(shown)
        if at >= 0:
            searching = False
            rest = searched[at + len(shown) :]
            if rest:
                yield rest
        elif len(searched) >= limit:
            searching = False
            note("--- some output in between is no longer kept ---")
            yield searched
    if searching and searched:
        yield searched


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
