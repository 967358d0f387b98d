"""Who holds accelerators that are its queue's own, and who borrows them.

A queue may hold more than its quota while nobody else needs it. Its guaranteed jobs have the quota
before its others, those of high priority before those of low, early ones before late ones; who
comes after it is used up borrows. A job that would be within its queue's quota and finds no room
takes back what jobs of other queues borrow, whatever it is worth to them.
"""

from collections.abc import Iterable, Mapping, Sequence

from controlplane.domain.ids import QueueName
from controlplane.rubick.seat import Seat


class Borrowing:
    """What is left of the queues' quotas, as it is given and taken."""

    def __init__(self, seats: Iterable[Seat], own: Mapping[QueueName, int]) -> None:
        """Counts what jobs hold already as still to be given.

        Args:
            seats: The jobs.
            own: What the jobs of each queue with a quota may hold of it together; empty if no queue
                may borrow.
        """
        self._left = dict(own)
        self._last = _last(seats, own) if own else frozenset()

    @property
    def is_possible(self) -> bool:
        """Whether any queue may borrow."""
        return bool(self._left)

    def use(self, queue: QueueName, count: int) -> None:
        """Counts accelerators that a queue's job gets; below 0 for what it gives back."""
        if queue in self._left:
            self._left[queue] -= count

    def own(self, seat: Seat) -> int:
        """How many the job can have within its queue's quota; 0 if that has none."""
        left = self._left.get(seat.queue)
        if left is None:
            return 0
        return max(0, left + (0 if seat.given is None else seat.given.accelerators))

    def borrows(self, seat: Seat) -> bool:
        """Whether the job holds what its queue borrows."""
        return seat.number in self._last and self._left[seat.queue] < 0

    def protects(self, victim: Seat, seat: Seat, accelerators: int) -> bool:
        """Whether the victim is not displaced because it is within its queue's quota and the other
        would not be within that of its own.
        """
        if victim.queue == seat.queue or not {victim.queue, seat.queue} <= self._left.keys():
            return False
        return not self.borrows(victim) and accelerators > self.own(seat)

    def owners_first(self, waiting: Sequence[Seat]) -> list[Seat]:
        """The same jobs, those last that would have to borrow once those before them are served."""
        if not self._left:
            return list(waiting)
        left = dict(self._left)
        owners: list[Seat] = []
        borrowers: list[Seat] = []
        for seat in waiting:
            least = int(seat.choices.accelerators.min(initial=_MANY))
            if seat.queue not in left:
                owners.append(seat)
            elif least <= left[seat.queue]:
                left[seat.queue] -= least
                owners.append(seat)
            else:
                borrowers.append(seat)
        return owners + borrowers


_MANY = 1_000_000_000


def _last(seats: Iterable[Seat], own: Mapping[QueueName, int]) -> frozenset[int]:
    """Those whose queue's quota is used up by the jobs before them and by themselves."""
    left = dict(own)
    last: list[int] = []
    holders = (seat for seat in seats if seat.held is not None and seat.queue in left)
    for seat in sorted(holders, key=lambda s: (not s.promised, s.rank, s.number)):
        assert seat.held is not None
        left[seat.queue] -= seat.held.accelerators
        if left[seat.queue] < 0:
            last.append(seat.number)
    return frozenset(last)
