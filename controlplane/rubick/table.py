"""A round's table: who has been given what so far, what is still there, and how to find a place.

What is given can be taken back, one step or many (``_roll_back``). How accelerators are dealt is
the round's business (``controlplane.rubick.round``); how other choices are dealt anew, which a
search found, is here.
"""

from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType

from controlplane.domain.ids import JobUid, QueueName
from controlplane.domain.job import Topology
from controlplane.placing.racks import Allowed
from controlplane.rubick.board import Bin, Board, Parts, both
from controlplane.rubick.borrowing import Borrowing
from controlplane.rubick.choices import Choice, Choices, Numbers, best_first
from controlplane.rubick.in_place import place_for
from controlplane.rubick.seat import FOR_NOTHING, Given, Seat, count_of
from controlplane.rubick.settings import RubickSettings
from controlplane.rubick.starving import protected

FOR_NO_QUEUE: Mapping[QueueName, int] = MappingProxyType({})
"""The quotas where no queue has any."""

ANYWHERE: Mapping[int, Parts] = MappingProxyType({})

KEEPS = -1
"""Stands for what a job has."""

Answer = Sequence[int | None]
"""Of each job the position of its choice, ``KEEPS``, or None for nothing."""


def dealt_choice(seat: Seat) -> int | None:
    """Position of the choice that a seat was dealt; ``KEEPS`` for what it has, None for nothing."""
    given = seat.given
    if given is None:
        return None
    return KEEPS if given.choice is None else seat.choices.every.index(given.choice)


class Table:
    """What a round deals with.

    Attributes:
        seats: The jobs.
        reserved: For which job nodes are kept free, and in how many seconds it can begin, by node
            and type.
        put_off: Who gives back what it has for a better round that a search found.
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
        self.reserved: dict[Bin, tuple[JobUid, float]] = {}
        self.put_off: set[JobUid] = set()
        self._board = board
        self._settings = settings
        self._quota = dict(quotas)
        self._borrowing = Borrowing(seats, own)
        self._prices = prices
        self._paid: dict[Choices, Numbers] = {}
        self._undo: list[tuple[Seat, Given | None]] = []
        for seat in seats:
            if seat.held is not None:
                self._give(seat, seat.held)
        self._last_rank = max((seat.rank[0] for seat in seats if seat.rank), default=0.0)
        self._protected = protected(seats, settings.starving_share * sum(board.whole.values()))

    def worth(self) -> float:
        """The sum of worths."""
        return sum(seat.given.worth for seat in self.seats if seat.given is not None)

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
        parts = self._find_in_place(seat, choice) if seat.keeps_place else None
        if parts is not None:
            return parts
        if seat.rather is not None:
            rather = both(seat.rather[choice.kind], allowed[choice.kind])
            parts = self._find_among(seat, choice, rather)
            if parts is not None:
                return parts
        return self._find_among(seat, choice, allowed[choice.kind])

    def _find_in_place(self, seat: Seat, choice: Choice) -> Parts | None:
        """Room with which its ranks can stay. Nodes that it keeps off, and those that are kept free
        for somebody who starves, are not there to grow into; what it has there stays its own.
        """
        allowed = seat.nodes_for(choice)[choice.kind]
        joining = allowed if seat.rather is None else both(seat.rather[choice.kind], allowed)
        parts = place_for(seat.ranks, choice, self._board, joining)
        if parts is None or not self._lie_near(seat, parts):
            return None
        for where, count in parts:
            grows = count > seat.ranks.count(where)
            able = joining if grows else allowed
            if (grows and not self._board.is_open(where)) or not (able is None or where[1] in able):
                return None
        return parts

    def _may_have(self, seat: Seat, choice: Choice, parts: Parts) -> bool:
        """Whether these are there and the seat may have them for the choice."""
        allowed = seat.nodes_for(choice)
        if choice.kind not in allowed:
            return False
        quota = self._quota.get(seat.queue)
        if quota is not None and choice.accelerators > quota + count_of(seat):
            return False
        nodes = allowed[choice.kind]
        if seat.rather is not None:
            nodes = both(seat.rather[choice.kind], nodes)
        group = choice.plan.tensor_parallel
        return (
            len({where for where, _ in parts}) == len(parts)
            and self._lie_near(seat, parts)
            and all(
                self._board.free.get(where, 0) >= count
                and self._board.is_open(where)
                and (nodes is None or where[1] in nodes)
                and (choice.shares or count % group == 0)
                for where, count in parts
            )
        )

    def _lie_near(self, seat: Seat, parts: Parts) -> bool:
        """Whether they are no farther apart than the seat may have them."""
        if seat.topology is Topology.ANY or len(parts) < 2:
            return True
        racks = {self._board.racks.get(node) for (_, node), _ in parts}
        return seat.topology is Topology.SAME_RACK and len(racks) == 1 and None not in racks

    def _find_among(self, seat: Seat, choice: Choice, allowed: Allowed) -> Parts | None:
        if choice.shares:
            parts = self._board.find(choice.kind, choice.shares, allowed, seat.topology)
            return parts if parts is not None else self._backfilled(seat, choice, allowed)
        group = choice.plan.tensor_parallel
        return self._board.find_anywhere(
            choice.kind, choice.accelerators, group, allowed, seat.topology
        )

    def _backfilled(self, seat: Seat, choice: Choice, allowed: Allowed) -> Parts | None:
        """Room on a node that is kept free for another job, if this one is done by then, even by
        the upper end of what is predicted.
        """
        if not self.reserved or len(choice.shares) > 1 or choice.is_guess:
            return None
        needs = seat.restart_seconds + seat.steps_left * choice.seconds_upper
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
        net, best = self._net(seat), None
        for i in best_first(net, above):
            if best is not None and net[i] <= above:
                break
            parts = self._find(seat, seat.choices.every[i])
            if parts is None:
                continue
            given = seat.dealt(i, parts)
            if seat.worths.of_restarts is None:
                return given
            # It may be had in memory for more than is left of it where there is room.
            left = float(net[i]) - (float(seat.worths.of_choices[i]) - given.worth)
            if left > above:
                best, above = given, left
        return best

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

    def adopt(
        self,
        seats: Sequence[Seat],
        answer: Answer,
        places: Mapping[int, Parts] = ANYWHERE,
        later: Container[int] = (),
    ) -> bool:
        """Gives these jobs other choices, those that need whole nodes first. What does not fit gets
        what does. Who would be changed for its own good, and by less than ``least_gain``, keeps
        what it has. It stands only if it is worth more than what was dealt, and more by what it
        costs those to switch that were to go on as they are.

        Args:
            seats: The jobs; see ``open_to_search``.
            answer: Their choices.
            places: Where they should be if there is room, by number of the seat.
            later: Seats that come after the others.
        """
        answer = [self._unless_hardly_better(*each) for each in zip(seats, answer, strict=True)]
        mark, before = len(self._undo), self.worth()
        dealt = [seat.given for seat in seats]
        self._deal_anew(seats, answer, places, later)
        for seat, i, had in zip(seats, answer, dealt, strict=True):
            if i != KEEPS and seat.held is not None and had is seat.held:
                before += seat.switching
        if self.worth() <= before:
            self._roll_back(mark)
            return False
        for seat, given in zip(seats, dealt, strict=True):
            if seat.given is None and seat.held is not None and given is not None:
                self.put_off.add(seat.uid)
        return True

    def _unless_hardly_better(self, seat: Seat, i: int | None) -> int | None:
        """The choice; ``KEEPS`` where it is better for the job than what it has and saves too
        little to be changed for.
        """
        held = seat.held
        if held is None or i is None or i == KEEPS:
            return i
        saved = seat.least_gain(self._settings.least_gain) * seat.held_seconds_left
        saved *= seat.worths.of_a_second
        better = float(seat.worths.of_choices[i]) - held.worth
        return KEEPS if 0.0 < better < saved else i

    def _deal_anew(
        self,
        seats: Sequence[Seat],
        answer: Answer,
        places: Mapping[int, Parts],
        later: Container[int],
    ) -> None:
        for seat in seats:
            self._give(seat, None)
        chosen: list[tuple[Seat, int, Choice]] = []
        for seat, i in zip(seats, answer, strict=True):
            if i == KEEPS:
                # Who may not be searched for may have got what it has.
                if seat.held is not None and self._board.has(seat.held.parts):
                    self._give(seat, seat.held)
            elif i is not None:
                chosen.append((seat, i, seat.choices.every[i]))
        chosen.sort(
            key=lambda each: (
                each[0].number in later,
                *(-n for n in each[2].shares[:1]),
                -each[2].accelerators,
            )
        )
        # Who has a place in mind comes before those that look for one.
        for seat, i, choice in chosen:
            parts = places.get(seat.number)
            if parts is not None and self._may_have(seat, choice, parts):
                self._give(seat, seat.dealt(i, parts))
        for seat, i, choice in chosen:
            parts = self._find(seat, choice) if seat.given is None else None
            if parts is not None:
                self._give(seat, seat.dealt(i, parts))
        self._deal_rest(seats)
        for seat in seats:
            self._stay_if_hardly_better(seat)

    def _stay_if_hardly_better(self, seat: Seat) -> None:
        """Gives the seat what it has, if that is still there and what it was dealt would be better
        for it in memory, but is not by enough to pay for a restart.
        """
        held, given, worths = seat.held, seat.given, seat.worths
        if held is None or given is None or given.choice is None or worths.of_restarts is None:
            return
        in_memory = float(worths.of_choices[seat.choices.every.index(given.choice)])
        saved = seat.least_gain(self._settings.least_gain) * seat.held_seconds_left
        if given.worth == in_memory or in_memory <= held.worth:
            return
        if given.worth - held.worth >= saved * worths.of_a_second:
            return
        self._give(seat, None)
        self._give(seat, held if self._may_stay(seat, held) else given)

    def _deal_rest(self, seats: Sequence[Seat]) -> None:
        """What is left over, to those of the seats that have nothing."""
        for seat in seats:
            given = self._best_free(seat, 0.0) if seat.given is None else None
            if given is not None:
                self._give(seat, given)
        for seat in seats:
            # To wait may be worth more than to run slowly, but who runs is not stopped for nobody.
            if seat.given is None and seat.held is not None and self._may_stay(seat, seat.held):
                self._give(seat, seat.held)

    def _may_stay(self, seat: Seat, held: Given) -> bool:
        quota = self._quota.get(seat.queue)
        return self._board.has(held.parts) and (quota is None or held.accelerators <= quota)
