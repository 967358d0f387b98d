"""What a policy decided about a job broke a rule, so for a while it is not asked about that job."""

from dataclasses import dataclass

from controlplane.domain.clock import Duration, Instant, after, seconds

FIRST_SECONDS = 60
"""For so long a job is set aside at first; twice as long each time when it is refused again soon.

A mistake that lasts would cost a second decision in every cycle else, and of many such jobs one
would hide behind the other.
"""

MOST_SECONDS = 600
"""Nobody is set aside for longer: a rule may be broken only as the cluster stands just now."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """That a policy's decision about a job was refused.

    Attributes:
        text: The rule that it would have broken; a sentence.
        at: When it was refused.
        until: The policy is asked about the job again from then on.
    """

    text: str
    at: Instant
    until: Instant


def refusal_after(before: Refusal | None, text: str, at: Instant) -> Refusal:
    """A refusal of now.

    Args:
        before: The job's last one; None if there was none.
        text: The rule that was broken.
        at: Now.
    """
    wait = seconds(FIRST_SECONDS)
    if before is not None and at - before.until <= before.until - before.at:
        wait = min(Duration(2 * (before.until - before.at)), seconds(MOST_SECONDS))
    return Refusal(text, at, after(at, wait))
