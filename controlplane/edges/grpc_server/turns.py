"""Submissions of a burst take turns in groups; one that is alone goes at once.

gRPC hands over calls one by one, and between two of them its own work drives the code and the data
of a submission out of the processor's caches: the same checks take four times as long as right
after another submission. So while a group is being checked and made durable the next one gathers,
as it does at the store, and is then worked through in one go.
"""

import asyncio

_WAIT_MOST_SECONDS = 0.008


class Turns:
    """Lets callers in, for one asyncio loop. Whoever took a turn gives it back."""

    def __init__(self, wait_most_seconds: float = _WAIT_MOST_SECONDS) -> None:
        self._wait_most_seconds = wait_most_seconds
        self._inside = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._sizes = (1, 1)
        self._limit: asyncio.TimerHandle | None = None

    async def take(self) -> None:
        """Returns when it is the caller's turn: at once unless there is a burst, and never later
        than after ``wait_most_seconds``, whatever those inside wait for.
        """
        if not self._inside and not self._waiting and self._sizes[-1] == 1:
            self._inside = 1
            self._sizes = (1, 1)
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if self._limit is None:
            self._limit = loop.call_later(self._wait_most_seconds, self._let_in)
        self._let_in_if_enough()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # It had been let in already.
                self.give_back()
            raise

    def give_back(self) -> None:
        """The caller has done what it took its turn for."""
        self._inside -= 1
        self._let_in_if_enough()

    def _let_in_if_enough(self) -> None:
        """Two groups that take turns, one being checked while the other is being stored, are about
        of a size; so half of the last two is what can be expected to come.
        """
        if self._waiting and not self._inside and len(self._waiting) * 2 >= sum(self._sizes):
            self._let_in()

    def _let_in(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        # Whoever went away while waiting does not count.
        group = [turn for turn in self._waiting if not turn.done()]
        self._waiting = []
        self._sizes = (self._sizes[-1], max(1, len(group)))
        self._inside += len(group)
        for turn in group:
            turn.set_result(None)
