"""Ends a rank that waits for one which has failed, or which hangs.

A rank in the middle of a collective hears nothing: the connections of a failed rank stay open
until its process is gone, and rank 0 stays a while to host the notice board. So a thread looks at
the board, and leaves a sign of life there. A second one looks at the clock: it must not wait for a
board whose host has been stopped.
"""

import contextlib
import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.workloads.control import FAILED, ControlFolder
from headrace.workloads.pace import Beat, Pace, hung, silent
from headrace.workloads.refusal import RANK_HUNG, RANK_LOST

if TYPE_CHECKING:
    from torch.distributed import Store

    from headrace.workloads.rendezvous import Rendezvous

_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 1.0
"""How long the rank has to find out for itself, which ends it in better order."""
_LISTEN_SECONDS = 2.5
"""Who gives no two signs of life meanwhile is silent."""
_LISTENED_BEFORE_LOST = 3
"""Who is silent so many times in a row is taken for dead: no connection of its own tells."""
_HOST_LINGERS_SECONDS = 2.0
"""How long rank 0 stays for others to read what it found."""


@dataclass(frozen=True, slots=True)
class Circle:
    """Ranks that train together for a while.

    Attributes:
        name: Tells its signs of life from those of an earlier one.
        ranks: How many.
    """

    name: str
    ranks: int


class Watch:
    """Looks at the notice board and at the clock while the rank trains.

    Attributes:
        pace: Told by the main thread where it is.
    """

    def __init__(
        self, rendezvous: "Rendezvous", control: ControlFolder, stall_seconds: float
    ) -> None:
        self.pace = Pace(stall_seconds)
        self._rendezvous = rendezvous
        self._rank = rendezvous.rank
        self._circle = Circle("start", rendezvous.ranks)
        self._stores: tuple[Store, Store] | None = None
        if rendezvous.ranks > 1:
            self._connect()
        self._silences = 0
        self._control = control
        self._over = threading.Event()

    def __enter__(self) -> "Watch":
        if self._stores is not None:
            self._open_eyes()
        threading.Thread(target=self._mind_the_clock, name="clock", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _connect(self) -> None:
        # Stores of their own: one that a thread waits on answers nobody else.
        store = self._rendezvous.store
        self._stores = store.clone(), store.clone()

    def _open_eyes(self) -> None:
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def meet(self, name: str, ranks: int) -> None:
        """From now on these are the ranks.

        Args:
            name: Of their coming together, the same on all of them. Another one than before if
                newcomers are among them, who may take the place of a rank that was.
            ranks: How many.
        """
        self._circle = Circle(name, ranks)
        if ranks > 1 and self._stores is None:
            self._connect()
            self._open_eyes()

    def part_from(self, ranks: int) -> None:
        """From now on only the first so many are there."""
        self._circle = Circle(self._circle.name, ranks)

    def _run(self) -> None:
        assert self._stores is not None
        store, _ = self._stores
        while not self._over.wait(_LOOK_SECONDS):
            try:
                beat = json.dumps(self.pace.beat().told())
                store.set(f"beat/{self._circle.name}/{self._rank}", beat)
                if not store.check(["failure"]):
                    continue
                rank, code, message = json.loads(store.get("failure"))
            except RuntimeError:
                return  # the host of the board is gone, which ends every collective too
            if rank == self._rank or self._over.wait(_GRACE_SECONDS):
                return
            self._end(code, f"rank {rank}: {message}")

    # -- who is there ---------------------------------------------------------------------

    def silent(self) -> list[int]:
        """Ranks that give no sign of life. Takes a few seconds if there are any."""
        found = self._listened()
        return [0] if found is None else found[0]

    def _listened(self) -> tuple[list[int], dict[int, Beat]] | None:
        """Who is silent, and everybody's last beat; None if the board's host is."""
        circle = self._circle
        if circle.ranks == 1:
            return [], {0: self.pace.beat()}
        heard: list[tuple[list[int], dict[int, Beat]]] = []

        def listen() -> None:
            try:
                before = self._beats(circle)
                deadline = time.monotonic() + _LISTEN_SECONDS
                quiet = silent(before, before, circle.ranks)
                after = before
                while quiet and time.monotonic() < deadline:
                    time.sleep(_LOOK_SECONDS / 5)
                    after = self._beats(circle)
                    quiet = silent(before, after, circle.ranks)
                heard.append((quiet, after))
            except RuntimeError:
                return

        listener = threading.Thread(target=listen, name="listen", daemon=True)
        listener.start()
        listener.join(2 * _LISTEN_SECONDS)
        return heard[0] if heard else None

    def _beats(self, circle: Circle) -> dict[int, Beat]:
        assert self._stores is not None
        _, ear = self._stores
        found = {}
        for rank in range(circle.ranks):
            key = f"beat/{circle.name}/{rank}"
            if ear.check([key]):
                found[rank] = Beat(**json.loads(ear.get(key)))
        return found

    # -- the clock ------------------------------------------------------------------------

    def _mind_the_clock(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            if self.pace.needs_all:
                self._mind_the_others()
            if not self.pace.is_overdue:
                continue
            found = self._listened()
            if self._over.is_set() or not self.pace.is_overdue:
                continue
            who = hung([0], {}) if found is None else hung(*found)
            if who is not None:
                message = f"training stands still: {who}"
                self._end_all(RANK_HUNG, message, tell=found is not None)
                return

    def _mind_the_others(self) -> None:
        """See whether a rank is gone for which the others wait, as it was about to be connected."""
        found = self._listened()
        quiet = [0] if found is None else found[0]
        if not quiet or not self.pace.needs_all or self._over.is_set():
            self._silences = 0
            return
        self._silences += 1
        if self._silences >= _LISTENED_BEFORE_LOST:
            who = " and ".join(f"rank {rank}" for rank in quiet)
            self._end_all(RANK_LOST, f"lost contact with {who}", tell=found is not None)

    def _end_all(self, code: str, message: str, *, tell: bool) -> None:
        if tell and self._stores is not None:
            with contextlib.suppress(RuntimeError):  # without a host everybody finds out alone
                self._stores[1].compare_set("failure", "", json.dumps([self._rank, code, message]))
            if self._rank == 0:
                time.sleep(_HOST_LINGERS_SECONDS)
        self._end(code, message)

    def _end(self, code: str, message: str) -> None:
        """End the process, whose main thread may wait for ever."""
        sys.stderr.write(f"{code}: {message}\n")
        sys.stderr.flush()
        self._control.exit(FAILED, reason=code, message=message)
        os._exit(1)
