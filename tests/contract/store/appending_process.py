"""A control plane's writing side, to be killed: says on stdout what was acknowledged.

Run as ``python -m tests.contract.store.appending_process URL TERM``. Every line is the uid and
the number of an event whose append has resolved.
"""

import asyncio
import itertools
import sys

from controlplane.domain.ids import Term
from controlplane.edges.store.decisions import StoredDecisions
from controlplane.edges.store.store import Store
from controlplane.edges.store.tail import EventTail
from tests.contract.store.builders import SetClock, decided, progressed

APPENDERS = 20


async def main(url: str, term: Term) -> None:
    """Appends until it is killed."""
    store = Store.open(url)
    tail = EventTail(SetClock())
    writer = store.start_writer(term, tail)
    decisions = StoredDecisions(writer)

    def acknowledge(uid: str, sequence: int) -> None:
        sys.stdout.write(f"{uid} {sequence}\n")
        sys.stdout.flush()

    async def append(name: int) -> None:
        for n in itertools.count():
            uid = f"{term}-{name}-{n}"
            acknowledge(uid, await writer.append(progressed(uid, (n, float(n)))))

    async def decide() -> None:
        while True:
            acknowledge("CycleDecided", await decisions.append(decided(term, 0)))

    await asyncio.gather(decide(), *(append(name) for name in range(APPENDERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Term(int(sys.argv[2]))))
