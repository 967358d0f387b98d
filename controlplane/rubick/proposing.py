"""What a longer search found, as a proposal; and a proposal as a candidate of a later round.

A proposal names jobs, plans and nodes. Of a later round it is checked job by job: who is gone, has
it already, was promised something, starves or is left in peace keeps what the round dealt it; what
is no choice of a job any more (its spec changed, steps were fitted anew, types are gone) is
dropped; and where the nodes are not free any more other nodes are looked for. What is left counts
only if the whole round is worth more with it, and more by what it costs those to switch that would
go on as they are (``Round.adopt``).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from controlplane.domain.ids import JobUid
from controlplane.domain.placement import Placement
from controlplane.domain.proposal import (
    Proposal,
    ProposalUse,
    ProposedTarget,
    Verdict,
    share_gained,
)
from controlplane.placing.standing import Standing
from controlplane.rubick.board import Parts
from controlplane.rubick.choices import Choice
from controlplane.rubick.round import Round
from controlplane.rubick.seat import Seat, shares_of_parts
from controlplane.rubick.table import KEEPS, dealt_choice

GONE = "gone, or not to be decided about"
HAS_IT = "has it already"
IN_PEACE = "not to be changed now"
NO_CHOICE = "no choice any more"
NO_ROOM = "no room any more"


def targets_of(seats: Sequence[Seat]) -> Iterator[ProposedTarget]:
    """Who gets something else than it has."""
    for seat in seats:
        given = seat.given
        if given is None:
            if seat.held is not None:
                yield ProposedTarget(seat.uid)
        elif given.choice is not None:
            parts = tuple((node, count) for (_, node), count in given.parts)
            yield ProposedTarget(seat.uid, given.choice.kind, given.choice.plan, parts)


def take(dealing: Round, standings: Sequence[Standing], proposal: Proposal) -> ProposalUse:
    """Tries the proposal on a round that was dealt.

    Args:
        dealing: The round; it is changed if the proposal makes it worth more, else left as it was.
        standings: The jobs of its seats, in their order.
        proposal: What was found.
    """
    seats = dealing.open_to_search()
    if not seats:
        text = (
            "no round is dealt anew while queues may borrow, nodes are kept free for a job that "
            "starves, or no job may be changed"
        )
        return ProposalUse(proposal.made_of, Verdict.NOT_NOW, text)
    wish = _Wish(dealing, seats, standings, proposal)
    if not wish.targets:
        text = f"nothing of it is left to be done: {told(wish.dropped)}"
        return ProposalUse(proposal.made_of, Verdict.NOTHING_LEFT, text, dropped=wish.dropped)
    before, dealt = dealing.worth(), {seat.number: seat.given for seat in seats}
    taken = dealing.adopt(seats, wish.answer, wish.places, wish.later)
    if not taken:
        text = (
            f"{len(wish.targets)} of its {len(proposal.targets)} targets hold still, and with them "
            "the round would be worth no more, switches paid"
        )
        return ProposalUse(proposal.made_of, Verdict.WORTH_NO_MORE, text, dropped=wish.dropped)
    jobs = frozenset(seat.uid for seat in seats if seat.given != dealt[seat.number])
    missed = sum(1 for seat, target in wish.targets if not _got(seat, target))
    dropped = {**wish.dropped, NO_ROOM: missed} if missed else wish.dropped
    gained = share_gained(before, dealing.worth())
    left = f" ({told(dropped)})" if dropped else ""
    text = (
        f"the round is worth {100 * gained:.2g} % more with {len(wish.targets) - missed} of the "
        f"{len(proposal.targets)} targets that a longer search proposed{left}"
    )
    return ProposalUse(proposal.made_of, Verdict.TAKEN, text, gained, jobs, dropped)


def told(dropped: Mapping[str, int]) -> str:
    """Why targets did not hold, with how many."""
    return ", ".join(f"{count} {why}" for why, count in dropped.items()) or "it was empty"


class _Wish:
    """What is left of a proposal in a round.

    Attributes:
        targets: Seats that it wants to change, with where to.
        answer: The choices of all seats that may be changed.
        places: Where it wants them, by number of the seat.
        later: Seats of which it says nothing and that hold nothing: they come after the others.
        dropped: Targets that do not hold any more, by why.
    """

    def __init__(
        self,
        dealing: Round,
        seats: Sequence[Seat],
        standings: Sequence[Standing],
        proposal: Proposal,
    ) -> None:
        self.targets: list[tuple[Seat, ProposedTarget]] = []
        self.answer: list[int | None] = []
        self.places: dict[int, Parts] = {}
        self.later: set[int] = set()
        self.dropped: Counter[str] = Counter()
        wanted = {target.uid: target for target in proposal.targets}
        for seat in seats:
            target = wanted.pop(seat.uid, None)
            place = standings[seat.number].place
            chosen = None if target is None else self._chosen(seat, place, target)
            if target is not None and chosen is not None:
                self.targets.append((seat, target))
                self.answer.append(chosen if chosen != _NOTHING else None)
            elif seat.held is not None:
                self.answer.append(KEEPS)
            else:
                # It may have come since; where it says nothing the round's own choice stands.
                self.later.add(seat.number)
                self.answer.append(dealt_choice(seat))
        there = {seat.uid for seat in dealing.seats}
        for uid in wanted:
            self.dropped[IN_PEACE if uid in there else GONE] += 1

    def _chosen(self, seat: Seat, place: Placement | None, target: ProposedTarget) -> int | None:
        """Position of the choice; ``_NOTHING`` for none; None if the target does not hold."""
        if not target.parts:
            if seat.held is None:
                self.dropped[HAS_IT] += 1
                return None
            return _NOTHING
        parts = tuple(((target.kind, node), count) for node, count in target.parts)
        if (
            seat.held is not None
            and place is not None
            and place.plan == target.plan
            and set(seat.held.parts) == set(parts)
        ):
            self.dropped[HAS_IT] += 1
            return None
        for i, each in enumerate(seat.choices.every):
            if _is_choice(each, target, shares_of_parts(parts)):
                self.places[seat.number] = parts
                return i
        self.dropped[NO_CHOICE] += 1
        return None


_NOTHING = -2
"""Stands for giving back what a job has."""


def _is_choice(choice: Choice, target: ProposedTarget, shares: tuple[int, ...]) -> bool:
    if (choice.kind, choice.plan) != (target.kind, target.plan):
        return False
    return choice.shares == shares if choice.shares else choice.accelerators == sum(shares)


def _got(seat: Seat, target: ProposedTarget) -> bool:
    given = seat.given
    if given is None or given.choice is None:
        return given is None and not target.parts
    return (given.choice.kind, given.choice.plan) == (target.kind, target.plan)


def found_for(uid: JobUid, use: ProposalUse, proposal: Proposal) -> Iterator[str]:
    """What people are told of a job for which a longer search proposed something."""
    if use.verdict is Verdict.TAKEN and uid in use.jobs:
        yield f"A longer search beside the loop led to this: {use.text}."
    elif use.verdict is not Verdict.TAKEN and any(uid == each.uid for each in proposal.targets):
        yield f"A longer search proposed something else for it, which is left: {use.text}."
