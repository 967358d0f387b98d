"""A decision log that waits for a store that is away."""

import asyncio

import structlog

from controlplane.domain.event import CycleDecided
from controlplane.domain.ids import SequenceNumber
from controlplane.edges.store.errors import StoreUnavailableError
from controlplane.engine.ports import DecisionLog

_TRY_AGAIN_SECONDS = 1.0

log = structlog.get_logger(__name__)


class PatientLog:
    """Tries the same decision until it is kept."""

    def __init__(self, log_: DecisionLog) -> None:
        """Has had no trouble yet."""
        self._log = log_
        self.trouble = ""

    async def append(self, decided: CycleDecided) -> SequenceNumber:
        """Returns when the decision is durable, however long that takes."""
        while True:
            try:
                number = await self._log.append(decided)
            except StoreUnavailableError as error:
                if not self.trouble:
                    log.error("decisions cannot be written; nothing new is started", why=str(error))
                self.trouble = str(error)
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
            else:
                self.trouble = ""
                return number
