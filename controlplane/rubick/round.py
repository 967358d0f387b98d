"""Deals accelerators out: who gets which choice on which nodes, and who makes room for whom.

1. Jobs that starve reserve nodes, if need be (no starvation).
2. Jobs that wait are placed, those first whose worth for each accelerator is largest. What does not
   fit, or would fit much better elsewhere, may displace others: these are moved, shrunk or put off.
   Who is within its queue's quota takes back what others borrow of it.
3. Jobs that run are changed if that saves enough of the time that they still need.

Displacing is a transaction: it stands only if the sum of worths rises (for a job that was promised
its speed: whatever the others lose, as long as nobody else's promise breaks), and otherwise leaves
nothing behind.
"""

from collections.abc import Container, Mapping, Sequence

import numpy as np

from controlplane.domain.ids import JobUid, QueueName
from controlplane.rubick.board import Board, Parts
from controlplane.rubick.choices import Choice, best_first
from controlplane.rubick.displacing import Displacing
from controlplane.rubick.in_place import grown
from controlplane.rubick.seat import (
    FOR_NOTHING,
    PAID_SHARE,
    UNKNOWN_SECONDS_LEFT,
    Displaced,
    Given,
    Seat,
    kind_of,
    price_of,
    worth_of,
)
from controlplane.rubick.settings import RubickSettings
from controlplane.rubick.starving import Leaving, begins_soonest
from controlplane.rubick.table import ANYWHERE, FOR_NO_QUEUE, Answer, Table

_LOOKED_AT = 6
"""So many choices of a job, the best ones, are worth displacing others for."""


class Round(Table):
    """One dealing.

    Attributes:
        displaced: Who made room for whom, by the job that did.
    """

    def __init__(
        self,
        seats: Sequence[Seat],
        board: Board,
        settings: RubickSettings,
        quotas: Mapping[QueueName, int],
        prices: Mapping[str, float] = FOR_NOTHING,
        own: Mapping[QueueName, int] = FOR_NO_QUEUE,
    ) -> None:
        """Everybody who has something has it still; see ``Table``."""
        super().__init__(seats, board, settings, quotas, prices, own)
        self.displaced: dict[JobUid, Displaced] = {}
        self._attempts = settings.attempts
        self._displacing = Displacing(
            seats, board, self._borrowing, self._protected, settings.displaced_at_most
        )

    # -- dealing --------------------------------------------------------------------------

    def deal(self) -> None:
        """Deals; afterwards each seat's ``given`` says what it gets."""
        waiting = [seat for seat in self.seats if seat.given is None and not seat.stays]
        waiting.sort(key=self._turn)
        waiting = self._borrowing.owners_first(waiting)
        for seat in waiting:
            self._place(seat)
        running = [s for s in self.seats if s.held is not None and not s.stays]
        running.sort(key=lambda s: (s.rank, -s.held_seconds_left, s.number))
        self._improve_all(running)
        # What nobody wanted at that price is there for nothing.
        self._prices = FOR_NOTHING
        for seat in waiting:
            self._enlarge(seat)
        self._improve_all(running)

    def _improve_all(self, running: Sequence[Seat]) -> None:
        for seat in running:
            if seat.given is seat.held:
                self._improve(seat)

    def grown(self, seat: Seat, accelerators: int) -> Parts | None:
        """So many of the node that the seat has some of, if nobody else has a right to them."""
        if self._borrowing.is_possible:
            return None
        held = seat.given.parts if seat.given is not None else ()
        return grown(held, accelerators, self._board, self._quota.get(seat.queue))

    def gives(self, seat: Seat, given: Given) -> None:
        """Gives the seat something that is free, whatever it is worth."""
        self._give(seat, given)

    def adopt(
        self,
        seats: Sequence[Seat],
        answer: Answer,
        places: Mapping[int, Parts] = ANYWHERE,
        later: Container[int] = (),
    ) -> bool:
        """See ``Table``. Who made room for whom before it is true no more of those dealt anew."""
        if not super().adopt(seats, answer, places, later):
            return False
        anew = {seat.uid for seat in seats}
        for seat in seats:
            if seat.uid in self.displaced and seat.given is None:
                self.put_off.add(seat.uid)
        self.displaced = {
            uid: each
            for uid, each in self.displaced.items()
            if uid not in anew and each.by not in anew
        }
        return True

    def could_begin(self, seat: Seat) -> Choice | None:
        """The fastest choice for which there would be room, whatever it is worth; None if there is
        none.
        """
        left = {kind: self._board.left(kind) for kind in self._board.kinds}
        if not self.reserved and not any(left.values()):
            return None
        for i in seat.worths.of_choices.argsort(kind="stable")[::-1]:
            choice = seat.choices.every[int(i)]
            if self._find(seat, choice) is not None:
                return choice
        return None

    def _turn(self, seat: Seat) -> tuple[object, ...]:
        starving = seat.number not in self._protected
        since = seat.starves_since or 0.0
        worth = seat.worths.of_choices
        dense = float((worth / seat.choices.accelerators).max(initial=0.0))
        if not dense:
            return (starving, since, seat.rank, 0.0, seat.number)
        return (starving, since if not starving else 0.0, seat.rank, -dense, seat.number)

    # -- jobs that wait -------------------------------------------------------------------

    def _place(self, seat: Seat) -> None:
        # Who has a right to run runs, and if that is slower than to wait for better.
        least = -np.inf if self._is_privileged(seat) else 0.0
        given = self._best_free(seat, least)
        if given is not None:
            self._give(seat, given)
        else:
            self._reclaim(seat)
        for i in best_first(self._net(seat), least)[:_LOOKED_AT]:
            have = seat.given.worth if seat.given is not None else least
            if seat.worths.of_choices[i] <= have + seat.worths.switching / 4:
                continue
            if self._displace(seat, i):
                break
        if seat.given is None and seat.number in self._protected:
            self._reserve(seat)

    def _reclaim(self, seat: Seat) -> None:
        """Gives the seat something within its queue's quota, at any price, and if need be at the
        cost of those that borrow.
        """
        own = self._borrowing.own(seat)
        able = (seat.choices.accelerators <= own) & (seat.worths.of_choices > 0.0)
        if not own or not able.any():
            return
        net = np.where(able, self._net(seat), -np.inf)
        for i in (-net).argsort(kind="stable")[: min(_LOOKED_AT, int(able.sum()))].tolist():
            choice = seat.choices.every[i]
            parts = self._find(seat, choice)
            if parts is not None:
                self._give(seat, seat.dealt(i, parts))
                return
            if self._displace(seat, i, reclaims=True):
                return

    def _displace(self, seat: Seat, index: int, *, reclaims: bool = False) -> bool:
        """Gives the seat that choice at the cost of others, if that is worth it; at the cost of
        those that borrow, if it takes back what is its queue's.
        """
        choice = seat.choices.every[index]
        if not choice.shares or self._attempts <= 0 or choice.kind not in seat.nodes_for(choice):
            return False
        starts = seat.given is None
        must = reclaims or (starts and (seat.promised or seat.number in self._protected))
        for smallest_first in (False, True):
            self._attempts -= 1
            found = self._displacing.victims(seat, choice, smallest_first, reclaims)
            if found is None:
                return False
            if self._exchange(seat, index, *found, must, reclaims):
                return True
        return False

    def _exchange(
        self,
        seat: Seat,
        index: int,
        parts: Parts,
        victims: Sequence[Seat],
        must: bool,
        reclaims: bool,
    ) -> bool:
        """The transaction: takes from the victims, gives to the seat, finds the victims another
        place. Rolled back unless it is worth it.
        """
        mark = len(self._undo)
        before = sum(v.given.worth for v in victims if v.given is not None)
        before += seat.given.worth if seat.given is not None else 0.0
        lost = {victim.number: victim.given for victim in victims}
        held = [each.given for each in (seat, *victims)]
        for victim in victims:
            self._give(victim, None)
        self._give(seat, None)
        quota = self._quota.get(seat.queue)
        choice = seat.choices.every[index]
        if quota is not None and choice.accelerators > quota:
            self._roll_back(mark)
            return False
        self._give(seat, seat.dealt(index, parts))
        kept = True
        for victim in sorted(victims, key=lambda v: (v.rank, -worth_of(lost[v.number]), v.number)):
            again = self._best_free(victim, -np.inf if victim.promised else 0.0)
            if again is not None:
                self._give(victim, again)
            elif victim.promised and not reclaims:
                kept = False
                break
        after = worth_of(seat.given) + sum(worth_of(victim.given) for victim in victims)
        pays = sum(victim.switching for victim in victims)
        pays += self._cost_of_more([seat, *victims], held)
        outranked = bool(victims) and all(v.rank[:1] > seat.rank[:1] for v in victims)
        must = must or (outranked and held[0] is None)
        if not kept or (after - pays <= before and not must):
            self._roll_back(mark)
            return False
        for victim in victims:
            self.displaced[victim.uid] = Displaced(victim.uid, seat.uid, after - before, reclaims)
        return True

    def _cost_of_more(self, seats: Sequence[Seat], before: Sequence[Given | None]) -> float:
        """What these pay for what they have now and had not before, those not yet served being the
        poorer for it. Who goes over to another type pays the whole difference.
        """
        cost = 0.0
        for seat, had in zip(seats, before, strict=True):
            more = price_of(seat.given, self._prices) - price_of(had, self._prices)
            other_type = (
                had is not None and seat.given is not None and kind_of(had) != kind_of(seat.given)
            )
            cost += more if other_type else PAID_SHARE * more
        return cost

    # -- jobs that starve -----------------------------------------------------------------

    def _reserve(self, seat: Seat) -> None:
        """Keeps nodes free for the seat, those where it can begin soonest."""
        knobs = self._settings
        peace = (knobs.cool_down_seconds, max(knobs.cool_down_seconds, knobs.starving_seconds))
        leaving = Leaving(seat, self.seats, self._protected, self._borrowing, *peace)
        quota = self._quota.get(seat.queue)
        found = begins_soonest(self._board, leaving, np.inf if quota is None else quota, _LOOKED_AT)
        if found is not None:
            # What comes where others are soon displaced would have to be left in peace first.
            wait = 0.0 if seat.starves_long else min(found[0], UNKNOWN_SECONDS_LEFT)
            self._board.close(found[1])
            self.reserved.update(dict.fromkeys(found[1], (seat.uid, wait)))

    def _enlarge(self, seat: Seat) -> None:
        """More for a job that starts anyway, or something at last, out of what nobody wanted."""
        mark = len(self._undo)
        before = worth_of(seat.given)
        self._give(seat, None)
        better = self._best_free(seat, before)
        if better is None:
            self._roll_back(mark)
        else:
            self._give(seat, better)

    # -- jobs that run --------------------------------------------------------------------

    def _improve(self, seat: Seat) -> None:
        """Another choice for a job that runs, if that saves enough."""
        held = seat.held
        assert held is not None, "who runs holds something"
        if not len(seat.choices.every):
            return
        saved = seat.least_gain(self._settings.least_gain) * seat.held_seconds_left
        least = held.worth + saved * seat.worths.of_a_second
        net = self._net(seat)
        if net is not seat.worths.of_choices:
            least -= price_of(held, self._prices)
        if net.max() <= max(0.0, least):
            return
        mark = len(self._undo)
        self._give(seat, None)
        better = self._best_free(seat, max(0.0, least))
        if better is None:
            self._roll_back(mark)
        else:
            self._give(seat, better)
