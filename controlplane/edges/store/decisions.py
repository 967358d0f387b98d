"""The loop's decision log, in the store."""

from controlplane.domain.event import CycleDecided
from controlplane.domain.ids import SequenceNumber
from controlplane.edges.store.writer import GroupCommitWriter
from controlplane.engine.ports import TermLostError


class StoredDecisions:
    """Writes decisions by the same door as events; a ``DecisionLog``."""

    def __init__(self, writer: GroupCommitWriter) -> None:
        self._writer = writer

    async def append(self, decided: CycleDecided) -> SequenceNumber:
        """Returns when the decision is durable.

        Raises:
            TermLostError: The store has given a higher term to someone else.
            StoreUnavailableError: It is not stored, so nothing may be done about it.
        """
        if decided.term != self._writer.term:
            raise TermLostError(
                f"decided in term {decided.term}, but this writer has term {self._writer.term}"
            )
        return await self._writer.append(decided)
