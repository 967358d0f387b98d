"""Uids of jobs that are forgotten, or were never known: so many are kept in mind. Pure."""

from controlplane.domain.ids import Attempt, JobUid

UIDS_REMEMBERED = 10_000
"""How many uids of forgotten or unknown jobs are kept in mind. A stray of a uid that fell out is
one of an unknown job again: it is kept and reported, which is safe.
"""


def remember_attempt(seen: dict[JobUid, Attempt], uid: JobUid, attempt: Attempt) -> None:
    """Notes the highest attempt of a uid without a job; the oldest notes make room."""
    known = seen.pop(uid, attempt)
    seen[uid] = max(attempt, known)
    while len(seen) > UIDS_REMEMBERED:
        del seen[next(iter(seen))]


def unwant(unwanted: dict[JobUid, None], uid: JobUid) -> None:
    """Strays of this uid shall end. The oldest orders make room for new ones."""
    unwanted.pop(uid, None)
    unwanted[uid] = None
    while len(unwanted) > UIDS_REMEMBERED:
        del unwanted[next(iter(unwanted))]
