"""What the end of a unit's process means. Pure."""

import signal
from typing import Any

from agent.desired import UnitEnd
from controlplane.domain.reason import WITHOUT_A_WORD, Reason, ReasonCode
from controlplane.domain.record import Outcome
from headrace.api.plain_text import plain

_CODES = {code.value: code for code in ReasonCode}
_SIGNALS = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV"}

_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of ranks that somebody ended."""


def conclude(
    ended: dict[str, Any],
    statement: dict[str, Any] | None,
    *,
    unit: int,
    step: int,
    end_requested: bool,
    killed: bool,
    last_lines: str,
) -> UnitEnd:
    """How a unit ended whose supervisor saw it through.

    Args:
        ended: What the supervisor wrote.
        statement: What the rank wrote about its end, if it did.
        unit: Its number, for the sentence.
        step: Last step it reported.
        end_requested: Whether it was told to exit at once.
        killed: Whether this agent killed it because it did not.
        last_lines: The end of its output.
    """
    if "refused" in ended:
        reason = Reason(ReasonCode.START_REFUSED, str(ended["refused"]))
        return UnitEnd(Outcome.FAILED, step, reason)
    code = int(ended.get("exit_code", 1))
    said = statement or {}
    step = max(step, _number(said.get("step")))
    if code == 0 and said.get("outcome") in (Outcome.SUCCEEDED, Outcome.STOPPED):
        return UnitEnd(Outcome(said["outcome"]), step)
    if ended.get("out_of_memory"):
        message = _join(f"unit {unit} was killed because its memory ran out", last_lines)
        return UnitEnd(Outcome.FAILED, step, Reason(ReasonCode.OUT_OF_MEMORY, message))
    if said.get("outcome") == Outcome.FAILED:
        known = _CODES.get(str(said.get("reason")), ReasonCode.RANK_FAILED)
        message = plain(str(said.get("message") or f"unit {unit} failed"))
        return UnitEnd(Outcome.FAILED, step, Reason(known, _join(message, last_lines)))
    if end_requested and (killed or code != -signal.SIGKILL):
        # No reason of its own: the control plane knows why it gave the order. But who was killed by
        # somebody else is often why: its peers told first that they had lost it.
        return UnitEnd(Outcome.FAILED, step)
    if code < 0:
        how = f"was killed by {_SIGNALS.get(-code, f'signal {-code}')}"
    else:
        how = f"exited with code {code}"
    message = _join(f"unit {unit} {how} {WITHOUT_A_WORD}", last_lines)
    return UnitEnd(Outcome.FAILED, step, Reason(ReasonCode.RANK_FAILED, message))


def killed_by_others(
    ended: dict[str, Any], statement: dict[str, Any] | None, *, end_requested: bool, killed: bool
) -> bool:
    """Whether somebody else ended the rank, and neither it nor the kernel says why.

    The arguments are those of `conclude`.
    """
    code = ended.get("exit_code")
    if end_requested and (killed or code != -signal.SIGKILL):
        return False
    failed = (statement or {}).get("outcome") == Outcome.FAILED
    return code in _FROM_OUTSIDE and not (failed or ended.get("out_of_memory"))


def vanished(
    *,
    unit: int,
    step: int,
    ray_lost: bool = False,
    pod_lost: bool = False,
    end_requested: bool,
    last: str,
) -> UnitEnd:
    """How a unit ended whose supervisor could not say so, or whose rank was killed as Ray went."""
    if pod_lost and not end_requested:
        message = f"the pod of unit {unit} ended: it was deleted or evicted, or its memory ran out"
        return UnitEnd(Outcome.LOST, step, Reason(ReasonCode.RANK_LOST, _join(message, last)))
    if ray_lost:
        # Also if its end was ordered: that was often because a peer told first that it had lost it.
        message = f"Ray went away on the node and took unit {unit} with it"
        return UnitEnd(Outcome.LOST, step, Reason(ReasonCode.RAY_LOST, message))
    if end_requested:
        return UnitEnd(Outcome.LOST, step)
    message = _join(f"the actor of unit {unit} died", last)
    return UnitEnd(Outcome.LOST, step, Reason(ReasonCode.RANK_LOST, message))


def to_json(end: UnitEnd) -> dict[str, Any]:
    """As plain values, for the control folder."""
    reason = end.reason
    return {
        "outcome": end.outcome.value,
        "step": end.step,
        "code": reason.code.value if reason else "",
        "message": reason.message if reason else "",
    }


def from_json(value: dict[str, Any]) -> UnitEnd:
    """The end that ``to_json`` described."""
    code = _CODES.get(str(value.get("code")))
    reason = Reason(code, str(value.get("message", ""))) if code else None
    return UnitEnd(Outcome(value["outcome"]), int(value.get("step", 0)), reason)


def _join(sentence: str, last_lines: str) -> str:
    """The sentence, and below it the output's end, which often is that sentence once more."""
    others = "\n".join(line for line in last_lines.splitlines() if sentence not in line)
    return f"{sentence}\nIts last lines:\n{others}" if others else sentence


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
