"""Resuming a watch from before this process began: the store knows which jobs went since."""

import grpc

from controlplane.domain.action import ForgetJob
from controlplane.domain.event import CycleDecided, JobSubmitted
from controlplane.domain.ids import JobUid, SequenceNumber
from controlplane.domain.job import Job
from controlplane.edges.grpc_server.errors import RefusedError, unavailable
from controlplane.edges.grpc_server.feed import Gone, StateFeed
from controlplane.edges.grpc_server.history import History

_PAGE = 1000
_MOST_PAGES = 50


def outdated(why: str) -> RefusedError:
    """The watch ends; watching again from the last version misses nothing."""
    return unavailable(f"{why}; watch again from the last version")


async def forgotten_since(history: History, feed: StateFeed, version: int) -> list[Gone]:
    """Jobs forgotten after ``version``, from the event log.

    Raises:
        RefusedError: OUT_OF_RANGE: the version is unknown here or too old; begin anew with 0.
    """
    if version > feed.version:
        raise _too_far(f"version {version} is ahead of {feed.version}: the store was restored")
    after = SequenceNumber(version - 1)
    gone: dict[JobUid, Gone] = {}
    known: dict[JobUid, Job] = {}
    for page_number in range(_MOST_PAGES):
        page = await history.events(None, after, _PAGE)
        if page_number == 0 and version > 0 and (not page or page[0].sequence > version + 1):
            raise _too_far(f"what happened after version {version} is no longer stored")
        for numbered in page:
            event = numbered.event
            if isinstance(event, JobSubmitted):
                known[event.job.uid] = event.job
            elif isinstance(event, CycleDecided):
                for action in event.actions:
                    if isinstance(action, ForgetJob):
                        job = known.get(action.uid)
                        gone[action.uid] = Gone(
                            numbered.sequence,
                            action.uid,
                            job.namespace if job else "",
                            job.name if job else "",
                            job.spec.queue if job else "",
                        )
        if len(page) < _PAGE:
            return [job for uid, job in gone.items() if uid not in feed.state.jobs]
        after = page[-1].sequence
    raise _too_far(f"too much happened since version {version}")


def _too_far(why: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.OUT_OF_RANGE, f"{why}; watch again from version 0", ())
