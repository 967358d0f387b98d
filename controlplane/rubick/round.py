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

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from controlplane.domain.ids import JobUid, QueueName
from controlplane.rubick.board import Allowed, Bin, Board, Parts, both
from controlplane.rubick.borrowing import Borrowing
from controlplane.rubick.choices import Choice, Choices, Numbers, best_first
from controlplane.rubick.in_place import grown, in_place
from controlplane.rubick.seat import (
    FOR_NOTHING,
    PAID_SHARE,
    Displaced,
    Given,
    Seat,
    count_of,
    kind_of,
    price_of,
    worth_of,
)
from controlplane.rubick.settings import RubickSettings
from controlplane.rubick.starving import protected, soonest

_LOOKED_AT = 6
"""So many choices of a job, the best ones, are worth displacing others for."""

_NODES_LOOKED_AT = 64
"""So many nodes are compared for each share when others are to be displaced."""

_NOTHING: Mapping[QueueName, int] = MappingProxyType({})

KEEPS = -1
"""Stands for what a job has."""

Answer = tuple[int | None, ...]
"""Of each job the position of its choice, ``KEEPS``, or None for nothing."""


class Round:
    """One dealing.

    Attributes:
        seats: The jobs.
        displaced: Who made room for whom, by the job that did.
        reserved: For which job nodes are kept free, and in how many seconds it can begin, by node
            and type.
    """

    def __init__(
        self,
        seats: Sequence[Seat],
        board: Board,
        settings: RubickSettings,
        quotas: Mapping[QueueName, int],
        prices: Mapping[str, float] = FOR_NOTHING,
        own: Mapping[QueueName, int] = _NOTHING,
    ) -> None:
        """Everybody who has something has it still.

        Args:
            seats: The jobs, numbered by position.
            board: Accelerators, those that seats hold counted as free.
            settings: The policy's knobs.
            quotas: What the jobs of a queue may hold together; no entry for no limit.
            prices: At which about as much is wanted as there is, by type (``bound``): jobs choose
                by what is left after paying, so that the first one does not take what is worth
                more to the others.
            own: What the jobs of each queue with a quota may hold of that alone; empty if no queue
                may borrow.
        """
        self.seats = seats
        self.displaced: dict[JobUid, Displaced] = {}
        self.reserved: dict[Bin, tuple[JobUid, float]] = {}
        self._board = board
        self._settings = settings
        self._quota = dict(quotas)
        self._borrowing = Borrowing(seats, own)
        self._attempts = settings.attempts
        self._prices = prices
        self._paid: dict[Choices, Numbers] = {}
        self._undo: list[tuple[Seat, Given | None]] = []
        for seat in seats:
            if seat.held is not None:
                self._give(seat, seat.held)
        self._last_rank = max((seat.rank[0] for seat in seats if seat.rank), default=0.0)
        self._protected = protected(seats, settings.starving_share * sum(board.whole.values()))

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

    def worth(self) -> float:
        """The sum of worths."""
        return sum(seat.given.worth for seat in self.seats if seat.given is not None)

    # -- other choices --------------------------------------------------------------------

    def open_to_search(self) -> list[Seat]:
        """Those whose choices may be made anew: of the lowest priority, neither promised anything
        nor starving, and not to be left in peace. None while nodes are kept free for somebody,
        or some have a right to what others borrow.
        """
        if self._borrowing.is_possible:
            return []
        last = max((seat.rank for seat in self.seats), default=())
        return [
            seat
            for seat in self.seats
            if not (self.reserved or seat.stays or seat.promised)
            and seat.number not in self._protected
            and seat.rank == last
        ]

    def room_for(self, seats: Sequence[Seat]) -> dict[str, list[int]]:
        """Accelerators of each node that others than these do not have, by type."""
        free = dict(self._board.free)
        for seat in seats:
            for where, count in seat.given.parts if seat.given is not None else ():
                free[where] += count
        found: dict[str, list[int]] = {kind: [] for kind in self._board.kinds}
        for (kind, _), count in free.items():
            found[kind].append(count)
        return found

    def adopt(self, seats: Sequence[Seat], answer: Answer) -> bool:
        """Gives these jobs other choices, those that need whole nodes first. What does not fit gets
        what does. It stands only if it is worth more than what was dealt, and more by what it costs
        those to switch that were to go on as they are.
        """
        mark, before = len(self._undo), self.worth()
        for seat, i in zip(seats, answer, strict=True):
            if i != KEEPS and seat.held is not None and seat.given is seat.held:
                before += seat.worths.switching
        self._deal_anew(seats, answer)
        if self.worth() <= before:
            self._roll_back(mark)
            return False
        return True

    def _deal_anew(self, seats: Sequence[Seat], answer: Answer) -> None:
        for seat in seats:
            self._give(seat, None)
        chosen: list[tuple[Seat, Choice, float]] = []
        for seat, i in zip(seats, answer, strict=True):
            if i == KEEPS:
                # Who may not be searched for may have got what it has.
                if seat.held is not None and self._board.has(seat.held.parts):
                    self._give(seat, seat.held)
            elif i is not None:
                worth = float(seat.worths.of_choices[i])
                chosen.append((seat, seat.choices.every[i], worth))
        chosen.sort(key=lambda each: (*(-n for n in each[1].shares[:1]), -each[1].accelerators))
        for seat, choice, worth in chosen:
            parts = self._find(seat, choice)
            if parts is not None:
                self._give(seat, Given(parts, worth, choice))
        for seat in seats:
            given = self._best_free(seat, 0.0) if seat.given is None else None
            if given is not None:
                self._give(seat, given)

    def grown(self, seat: Seat, accelerators: int) -> Parts | None:
        """So many of the node that the seat has some of, if nobody else has a right to them."""
        if self._borrowing.is_possible:
            return None
        return grown(seat.given, accelerators, self._board, self._quota.get(seat.queue))

    def gives(self, seat: Seat, given: Given) -> None:
        """Gives the seat something that is free, whatever it is worth."""
        self._give(seat, given)

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

    # -- giving and taking ----------------------------------------------------------------

    def _give(self, seat: Seat, given: Given | None) -> None:
        before = seat.given
        self._undo.append((seat, before))
        self._swap(seat, given)

    def _swap(self, seat: Seat, given: Given | None) -> None:
        if seat.given is not None:
            self._board.give_back(seat.number, seat.given.parts)
            if seat.queue in self._quota:
                self._quota[seat.queue] += seat.given.accelerators
            self._borrowing.use(seat.queue, -seat.given.accelerators)
        if given is not None:
            self._board.take(seat.number, given.parts)
            if seat.queue in self._quota:
                self._quota[seat.queue] -= given.accelerators
            self._borrowing.use(seat.queue, given.accelerators)
        seat.given = given

    def _roll_back(self, mark: int) -> None:
        """As it was when so many steps had been made. What was taken must be free before it is
        given back to whom it was taken from, so all changes are taken back before any is restored.
        """
        undone = self._undo[mark:]
        del self._undo[mark:]
        before: dict[int, tuple[Seat, Given | None]] = {}
        for seat, given in undone:
            before.setdefault(seat.number, (seat, given))
        for seat, _ in before.values():
            self._swap(seat, None)
        for seat, given in before.values():
            self._swap(seat, given)

    def _find(self, seat: Seat, choice: Choice) -> Parts | None:
        allowed = seat.nodes_for(choice)
        if choice.kind not in allowed:
            return None
        quota = self._quota.get(seat.queue)
        if quota is not None and choice.accelerators > quota + count_of(seat):
            return None
        if seat.rather is not None:
            rather = both(seat.rather[choice.kind], allowed[choice.kind])
            parts = self._find_among(seat, choice, rather)
            if parts is not None:
                return parts
        return self._find_among(seat, choice, allowed[choice.kind])

    def _find_among(self, seat: Seat, choice: Choice, allowed: Allowed) -> Parts | None:
        if choice.shares:
            parts = self._board.find(choice.kind, choice.shares, allowed)
            return parts if parts is not None else self._backfilled(seat, choice, allowed)
        group = choice.plan.tensor_parallel
        return self._board.find_anywhere(
            choice.kind, choice.accelerators, group, allowed, seat.one_node
        )

    def _backfilled(self, seat: Seat, choice: Choice, allowed: Allowed) -> Parts | None:
        """Room on a node that is kept free for another job, if this one is done by then, even by
        the upper end of what is predicted.
        """
        if not self.reserved or len(choice.shares) > 1:
            return None
        needs = seat.switch_seconds + seat.steps_left * choice.seconds_upper
        for where, (_, wait) in self.reserved.items():
            if (
                where[0] == choice.kind
                and needs <= wait
                and self._board.free[where] >= choice.accelerators
                and (allowed is None or where[1] in allowed)
            ):
                return ((where, choice.accelerators),)
        return None

    def _net(self, seat: Seat) -> Numbers:
        """What each choice is worth after paying. Who starves, or was promised something, gets it
        at any price.
        """
        if not self._prices or self._is_privileged(seat):
            return seat.worths.of_choices
        paid = self._paid.get(seat.choices)
        if paid is None:
            price = [self._prices.get(each.kind, 0.0) for each in seat.choices.every]
            paid = self._paid[seat.choices] = seat.choices.accelerators * price
        return seat.worths.of_choices - paid

    def _is_privileged(self, seat: Seat) -> bool:
        """Whether what it gets is not weighed against what others would do with it: it starves, was
        promised something, or has a higher priority than some.
        """
        outranks = bool(seat.rank) and seat.rank[0] < self._last_rank
        return seat.promised or outranks or seat.number in self._protected

    def _best_free(self, seat: Seat, above: float) -> Given | None:
        """The choice of most worth after paying that fits into what is free, if that is more than
        so much.
        """
        for i in best_first(self._net(seat), above):
            choice = seat.choices.every[i]
            parts = self._find(seat, choice)
            if parts is not None:
                return Given(parts, float(seat.worths.of_choices[i]), choice)
        return None

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
                self._give(seat, Given(parts, float(seat.worths.of_choices[i]), choice))
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
            found = self._victims(seat, choice, smallest_first, reclaims)
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
        self._give(seat, Given(parts, float(seat.worths.of_choices[index]), choice))
        kept = True
        for victim in sorted(victims, key=lambda v: (v.rank, -worth_of(lost[v.number]), v.number)):
            again = self._best_free(victim, -np.inf if victim.promised else 0.0)
            if again is not None:
                self._give(victim, again)
            elif victim.promised and not reclaims:
                kept = False
                break
        after = worth_of(seat.given) + sum(worth_of(victim.given) for victim in victims)
        pays = sum(victim.worths.switching for victim in victims)
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

    def _victims(
        self, seat: Seat, choice: Choice, smallest_first: bool, reclaims: bool
    ) -> tuple[Parts, list[Seat]] | None:
        """Nodes for the choice, and who would have to leave them; None if there are none.

        Args:
            seat: Who is to get it.
            choice: The choice.
            smallest_first: Whether jobs with few accelerators leave first; else those whose being
                there is worth least.
            reclaims: Whether those leave that borrow, and no others.
        """

        def may_leave(victim: Seat) -> bool:
            if reclaims:
                return self._borrowing.borrows(victim)
            if self._borrowing.protects(victim, seat, choice.accelerators):
                return False
            return victim.rank >= seat.rank

        allowed = seat.nodes_for(choice)[choice.kind]
        gone: dict[int, Seat] = {}
        parts: list[tuple[Bin, int]] = []
        used: set[Bin] = set()
        for share in choice.shares:
            best: tuple[tuple[float, int], Bin, list[Seat]] | None = None
            for where in self._candidates(choice.kind, share, allowed, used):
                leaving = self._who_leaves(seat, where, share, gone, smallest_first, may_leave)
                if leaving is None:
                    continue
                loss = sum(
                    worth_of(v.given) if not smallest_first else float(count_of(v)) for v in leaving
                )
                key = (loss, self._board.free[where])
                if best is None or key < best[0]:
                    best = (key, where, leaving)
                    if not leaving:
                        break
            if best is None:
                return None
            used.add(best[1])
            parts.append((best[1], share))
            gone.update((victim.number, victim) for victim in best[2])
            if len(gone) > self._settings.displaced_at_most:
                return None
        return tuple(parts), list(gone.values())

    def _candidates(self, kind: str, share: int, allowed: Allowed, used: set[Bin]) -> Iterator[Bin]:
        looked_at = 0
        for where in self._board.emptiest_first(kind):
            if where in used or (allowed is not None and where[1] not in allowed):
                continue
            yield where
            looked_at += 1
            if looked_at >= _NODES_LOOKED_AT:
                return

    def _who_leaves(
        self,
        seat: Seat,
        where: Bin,
        share: int,
        gone: Mapping[int, Seat],
        smallest_first: bool,
        may_leave: Callable[[Seat], bool],
    ) -> list[Seat] | None:
        """Who must leave the node so that so many are free on it; None if not enough can."""
        free = self._board.free[where]
        holders = self._board.held[where]
        for number, count in holders.items():
            if number == seat.number or number in gone:
                free += count
        if free >= share:
            return []
        able = [
            self.seats[number]
            for number in holders
            if number != seat.number
            and number not in gone
            and self._can_leave(self.seats[number])
            and may_leave(self.seats[number])
        ]
        able.sort(
            key=lambda v: (
                (count_of(v), v.number) if smallest_first else (worth_of(v.given), v.number)
            )
        )
        leaving: list[Seat] = []
        for victim in able:
            leaving.append(victim)
            free += holders[victim.number]
            if free >= share:
                return leaving
        return None

    def _can_leave(self, victim: Seat) -> bool:
        if victim.stays or victim.number in self._protected:
            return False
        return victim.given is victim.held

    # -- jobs that starve -----------------------------------------------------------------

    def _reserve(self, seat: Seat) -> None:
        """Keeps nodes free for the seat, those where it can begin soonest."""
        best: tuple[float, float, list[Bin]] | None = None
        quota = self._quota.get(seat.queue)
        for i in best_first(seat.worths.of_choices, -np.inf)[:_LOOKED_AT]:
            choice = seat.choices.every[i]
            if quota is not None and choice.accelerators > quota:
                continue  # It is its quota that it waits for, and no node.
            if not choice.shares or choice.kind not in seat.nodes_for(choice):
                continue
            nodes = seat.nodes_for(choice)[choice.kind]
            waits = soonest(self._board, self.seats, choice.kind, choice.shares, nodes)
            if waits is None:
                continue
            loss = waits[0] - float(seat.worths.of_choices[i]) / seat.worths.of_a_second
            if best is None or loss < best[0]:
                best = (loss, *waits)
        if best is not None:
            self._board.close(best[2])
            self.reserved.update(dict.fromkeys(best[2], (seat.uid, best[1])))

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
        saved = 0.0 if seat.tries else self._settings.least_gain * seat.held_seconds_left
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
            self._give(seat, in_place(held, better, self._board) if seat.tries else better)
