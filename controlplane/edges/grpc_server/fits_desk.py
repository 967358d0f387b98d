"""What ``AdminService`` does about fits: takes in measurements, and tells what was learnt."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from controlplane.domain.event import MeasurementsImported
from controlplane.domain.fit_report import FitReport
from controlplane.domain.observation import Observation, imported_subject
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.edges.grpc_server.roles import caller
from controlplane.wire.measurements import fits_to_wire, imported_rows
from headrace.api.generated import admin_pb2
from headrace.api.profile_rows import PlanRow

Reports = Callable[[Mapping[str, StepTimeFit], Iterable[Observation]], Sequence[FitReport]]
"""How fits stand to what was measured."""


class FitsDesk:
    """Measurements and fits. What computes with them runs in threads: it loads much, and the loop
    does not wait for it.
    """

    def __init__(
        self,
        feed: StateFeed,
        door: Door,
        absurdity: Callable[[PlanRow], str],
        doubts: Callable[[Sequence[PlanRow], Mapping[str, StepTimeFit]], Sequence[str]],
        reports: Reports,
    ) -> None:
        """Knows nothing of its own.

        Args:
            feed: Has the newest state.
            door: Takes measurements in.
            absurdity: What is wrong with the time of a row; empty for nothing.
            doubts: What is far from what is predicted, a sentence each.
            reports: How fits stand to what was measured.
        """
        self._feed = feed
        self._door = door
        self._absurdity = absurdity
        self._doubts = doubts
        self._reports = reports

    async def take_in(
        self, request: admin_pb2.ImportMeasurementsRequest
    ) -> admin_pb2.ImportMeasurementsResponse:
        """Takes in all rows that are news. The same import twice is harmless.

        Raises:
            InvalidMessageError: A row is wrong; then none was taken in.
        """
        rows = await asyncio.to_thread(imported_rows, request, self._absurdity)
        state = self._feed.state
        there = state.observations
        news = tuple(row for row in rows if not _is_known(row, there.get(imported_subject(row))))
        doubted = await asyncio.to_thread(self._doubts, news, dict(state.fits))
        if news and not request.dry_run:
            who = caller.get().identity
            event = MeasurementsImported(news, who, self._door.now())
            await self._door.append_and_fold(event)
        return admin_pb2.ImportMeasurementsResponse(
            taken=len(news), known=len(rows) - len(news), doubts=doubted
        )

    async def list(self) -> admin_pb2.ListFitsResponse:
        """All fits."""
        state = self._feed.state
        fits, told = dict(state.fits), tuple(state.observations.values())
        return fits_to_wire(await asyncio.to_thread(self._reports, fits, told))


def _is_known(row: PlanRow, known: Observation | None) -> bool:
    return known is not None and known.row == row
