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
from typing import TYPE_CHECKING

from headrace.workloads.control import FAILED, ControlFolder
from headrace.workloads.pace import Beat, Pace, hung, silent
from headrace.workloads.refusal import RANK_HUNG

if TYPE_CHECKING:
    from headrace.workloads.rendezvous import Rendezvous

_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 1.0
"""How long the rank has to find out for itself, which ends it in better order."""
_LISTEN_SECONDS = 2.5
"""Who gives no two signs of life meanwhile is silent."""
_HOST_LINGERS_SECONDS = 2.0
"""How long rank 0 stays for others to read what it found."""


class Watch:
    """Looks at the notice board and at the clock while the rank trains.

    Attributes:
        pace: Told by the main thread where it is.
    """

    def __init__(
        self, rendezvous: "Rendezvous", control: ControlFolder, stall_seconds: float
    ) -> None:
        self.pace = Pace(stall_seconds)
        self._rank = rendezvous.rank
        self._ranks = rendezvous.ranks
        self._alone = rendezvous.ranks == 1
        # Stores of their own: one that a thread waits on answers nobody else.
        self._store = rendezvous.store.clone() if not self._alone else None
        self._ear = rendezvous.store.clone() if not self._alone else None
        self._control = control
        self._over = threading.Event()

    def __enter__(self) -> "Watch":
        if not self._alone:
            threading.Thread(target=self._run, name="watch", daemon=True).start()
        threading.Thread(target=self._mind_the_clock, name="clock", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _run(self) -> None:
        assert self._store is not None
        while not self._over.wait(_LOOK_SECONDS):
            try:
                beat = json.dumps(self.pace.beat().told())
                self._store.set(f"beat/{self._rank}", beat)
                if not self._store.check(["failure"]):
                    continue
                rank, code, message = json.loads(self._store.get("failure"))
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
        if self._alone:
            return [], {0: self.pace.beat()}
        heard: list[tuple[list[int], dict[int, Beat]]] = []

        def listen() -> None:
            try:
                before = self._beats()
                deadline = time.monotonic() + _LISTEN_SECONDS
                quiet = silent(before, before, self._ranks)
                after = before
                while quiet and time.monotonic() < deadline:
                    time.sleep(_LOOK_SECONDS / 5)
                    after = self._beats()
                    quiet = silent(before, after, self._ranks)
                heard.append((quiet, after))
            except RuntimeError:
                return

        listener = threading.Thread(target=listen, name="listen", daemon=True)
        listener.start()
        listener.join(2 * _LISTEN_SECONDS)
        return heard[0] if heard else None

    def _beats(self) -> dict[int, Beat]:
        assert self._ear is not None
        found = {}
        for rank in range(self._ranks):
            if self._ear.check([f"beat/{rank}"]):
                found[rank] = Beat(**json.loads(self._ear.get(f"beat/{rank}")))
        return found

    # -- the clock ------------------------------------------------------------------------

    def _mind_the_clock(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            if not self.pace.is_overdue:
                continue
            found = self._listened()
            if self._over.is_set() or not self.pace.is_overdue:
                continue
            who = hung([0], {}) if found is None else hung(*found)
            if who is not None:
                self._end_hung(f"training stands still: {who}", tell=found is not None)
                return

    def _end_hung(self, message: str, *, tell: bool) -> None:
        if tell and self._ear is not None:
            with contextlib.suppress(RuntimeError):  # without a host everybody finds out alone
                self._ear.compare_set("failure", "", json.dumps([self._rank, RANK_HUNG, message]))
            if self._rank == 0:
                time.sleep(_HOST_LINGERS_SECONDS)
        self._end(RANK_HUNG, message)

    def _end(self, code: str, message: str) -> None:
        """End the process, whose main thread may wait for ever."""
        sys.stderr.write(f"{code}: {message}\n")
        sys.stderr.flush()
        self._control.exit(FAILED, reason=code, message=message)
        os._exit(1)
