"""Plugs the edges into the loop and keeps a term, from the first to the last moment.

A *reign* is the time under one term: take the lease, restore the state, run the loop. It ends when
the process shall stop, when an agent has obeyed a higher term (the next reign is above that), or
when someone else has taken the lease; then this process goes, and says so.
"""

import asyncio
import contextlib
import gc
import json
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from typing import Any

import structlog

from controlplane.config import RestoreSettings, ServeSettings, host_name, read_settings
from controlplane.domain.clock import Instant, after, seconds
from controlplane.domain.ids import JobUid, SequenceNumber, Term
from controlplane.edges.forecasting import Forecaster
from controlplane.edges.grpc_server.admin import AdminService
from controlplane.edges.grpc_server.assignments import AssignmentBook
from controlplane.edges.grpc_server.contacts import Contacts
from controlplane.edges.grpc_server.directory import JobDirectory
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.edges.grpc_server.fits_desk import FitsDesk
from controlplane.edges.grpc_server.gatekeeper import Gatekeeper
from controlplane.edges.grpc_server.history import History
from controlplane.edges.grpc_server.jobs import JobService
from controlplane.edges.grpc_server.log_broker import LogBroker
from controlplane.edges.grpc_server.nodes import NodeService
from controlplane.edges.grpc_server.operator_terms import OperatorTerms
from controlplane.edges.grpc_server.roles import RoleMap, RolesFileError
from controlplane.edges.grpc_server.server import (
    ListenRefusedError,
    Server,
    TlsFiles,
    start_server,
)
from controlplane.edges.grpc_server.submission import Submission
from controlplane.edges.learning import Learner
from controlplane.edges.paced_events import PacedEvents
from controlplane.edges.playing_process import PlayingProcess
from controlplane.edges.searching import Searcher
from controlplane.edges.store.backup import pieces_of, restore
from controlplane.edges.store.decisions import StoredDecisions
from controlplane.edges.store.errors import LeaseHeldError, StoreError, StoreUnavailableError
from controlplane.edges.store.lease import LEASE_FRESH
from controlplane.edges.store.patient_log import PatientLog
from controlplane.edges.store.pruning import Retention
from controlplane.edges.store.store import Store
from controlplane.edges.store.tail import EventTail
from controlplane.edges.store.writer import GroupCommitWriter
from controlplane.edges.telemetry import MetricsPage, Telemetry
from controlplane.edges.wall_clock import WallClock
from controlplane.engine.loop import CycleReport, Loop
from controlplane.engine.ports import TermLostError
from controlplane.engine.state import ClusterState
from controlplane.live import absurdity, doubts, fit_reports, learn, lessons, live_policies
from controlplane.logs import set_up_logs
from headrace.api.addresses import is_loopback

_TRY_AGAIN_SECONDS = 1.0
_LOOK_SECONDS = 0.25
_RENEW_SECONDS = LEASE_FRESH / 4 / seconds(1)
_STOP_GRACE_SECONDS = 2.0
_COLLECT_AFTER = (20_000, 20, 20)
_CHECKPOINT_AFTER_EVENTS = 1_000

OK, BROKEN, REFUSED, TERM_LOST = 0, 1, 2, 3
"""Exit codes: stopped as asked; it cannot go on; it cannot start like this; another one decides."""

log = structlog.get_logger(__name__)


class _End(Enum):
    """How a reign ended."""

    STOPPED = "stopped"
    RISES = "rises"


@dataclass(slots=True)
class _Reign:
    """What exists under one term."""

    term: Term
    state: ClusterState
    writer: GroupCommitWriter
    tail: EventTail
    log: PatientLog
    replayed: int
    restored: bool
    recovering: bool


def _loaded(store: Store) -> tuple[ClusterState, int]:
    """The state as it was stored, nobody heard yet; and how many events were folded for it."""
    checkpoint, events = store.load(ClusterState)
    state = checkpoint if checkpoint is not None else ClusterState.empty()
    restored_up_to, floor = store.attempt_floor()
    # As it went when they were logged: first came the restore, then what was decided after it.
    before = [item for item in events if item.sequence <= restored_up_to]
    state = state.fold(before).with_attempts_above(floor)
    return state.fold(events[len(before) :]).after_restart(), len(events)


class ControlPlane:
    """One process that decides, or waits until it may."""

    def __init__(self, settings: ServeSettings, clock: WallClock | None = None) -> None:
        self._settings = settings
        self._clock = clock or WallClock()
        self._version = metadata.version("headrace-server")
        self._telemetry = Telemetry(self._version, self._clock.monotonic)
        self._policies = live_policies()
        self._store: Store | None = None
        self._reign: _Reign | None = None
        self._waiting_for = "the control plane starts"
        self._obeyed = Term(0)
        self._rise = asyncio.Event()
        self._stop = asyncio.Event()
        self.ready = asyncio.Event()
        """Set when the first reign has begun."""
        self.address = ""
        """Host and port of the gRPC API, once bound."""
        self.metrics_address = ""
        """Host and port of the metrics, once bound."""
        self._feed = StateFeed(ClusterState.empty(), self._clock.monotonic)
        self._directory = JobDirectory(self._feed)
        self._door = Door(self._clock, self._feed)
        self._learner = Learner(self._feed, self._door, lessons, learn)
        self._searcher = Searcher(self._feed, self._door, self._policies, self._clock.monotonic)
        self._forecaster = Forecaster(
            self._feed,
            self._door,
            PlayingProcess() if settings.forecast_seconds else None,
            self._telemetry,
            every_seconds=settings.forecast_seconds,
            monotonic=self._clock.monotonic,
        )
        self._contacts = Contacts(self._feed, self._door, self._clock.monotonic)
        self._assignments = AssignmentBook()
        self._logs = LogBroker()
        self._history = History(self._clock)
        monotonic, observe = self._clock.monotonic, self._telemetry.call_handled
        fence = OperatorTerms(self._feed, self._door).admit
        self._gatekeeper = Gatekeeper(None, monotonic, observe, fence)

    # What the services ask of the reign.

    @property
    def term(self) -> Term:
        """The present term; 0 while standing by."""
        return self._reign.term if self._reign is not None else Term(0)

    @property
    def condition(self) -> str:
        """``deciding``, ``recovering``, or a sentence on what is wrong."""
        reign = self._reign
        if reign is None:
            return self._waiting_for
        trouble = reign.log.trouble or reign.writer.problem
        if trouble:
            return trouble
        return "recovering" if reign.recovering else "deciding"

    def rise_above(self, term: Term) -> None:
        """An agent has obeyed this term; the next reign is above it."""
        if term > self._obeyed:
            log.warning("an agent has obeyed a higher term", obeyed=term, term=self.term)
            self._obeyed = term
        self._rise.set()

    def stop(self) -> None:
        """Asks the process to end."""
        self._stop.set()

    async def run(self) -> int:
        """Runs until asked to stop; returns the exit code.

        Raises:
            ListenRefusedError: An address cannot be listened on.
            StoreError: The store cannot be used, whatever we wait.
            RolesFileError: The mapping file is wrong.
        """
        page = self._start_metrics()
        try:
            server = await self._start_server()
        except BaseException:
            if page is not None:
                page.close()
            raise
        watching = asyncio.create_task(self._watch_health(server, page))
        try:
            return await self._rule(server)
        finally:
            self._close("the control plane stops")
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await server.stop(_STOP_GRACE_SECONDS)
            if page is not None:
                await asyncio.to_thread(page.close)
            if self._store is not None:
                await asyncio.to_thread(self._store.close)

    def _start_metrics(self) -> MetricsPage | None:
        address = self._settings.metrics_listen
        if not address:
            return None
        if not self._settings.insecure_listen and not is_loopback(address):
            raise ListenRefusedError(
                f"{address} can be reached from other machines and metrics go without TLS to "
                "whoever asks; listen on 127.0.0.1, or insist with --insecure-listen"
            )
        try:
            page = MetricsPage(self._telemetry.registry, address, self._clock.monotonic)
        except OSError as error:
            raise ListenRefusedError(f"cannot listen on {address} for metrics: {error}") from error
        self.metrics_address = page.address
        return page

    async def _start_server(self) -> Server:
        tls = self._settings.tls
        if tls is not None:
            self._gatekeeper.roles = RoleMap.read(tls.roles)
        self._gatekeeper.closed = self._waiting_for
        server = await start_server(
            address=self._settings.listen,
            tls=TlsFiles(tls.key, tls.certificate, tls.client_ca) if tls is not None else None,
            insecure_listen=self._settings.insecure_listen,
            gatekeeper=self._gatekeeper,
            jobs=JobService(
                feed=self._feed,
                directory=self._directory,
                submission=Submission(
                    feed=self._feed,
                    directory=self._directory,
                    door=self._door,
                    mint=lambda: JobUid(str(uuid.uuid4())),
                ),
                history=self._history,
                logs=self._logs,
                clock=self._clock,
            ),
            nodes=NodeService(
                door=self._door,
                contacts=self._contacts,
                assignments=self._assignments,
                logs=self._logs,
                reign=self,
            ),
            admin=AdminService(
                feed=self._feed,
                directory=self._directory,
                door=self._door,
                history=self._history,
                reign=self,
                policies=self._policies,
                fits=FitsDesk(self._feed, self._door, absurdity, doubts, fit_reports),
                version=self._version,
                dashboard_url=self._settings.dashboard_url,
            ),
        )
        self.address = server.address
        log.info("listening", grpc=self.address, metrics=self.metrics_address)
        return server

    def _close(self, why: str) -> None:
        """Ends every stream and lets nothing in any more."""
        self._gatekeeper.closed = why
        self._door.close(why)
        self._feed.end_watchers(why)
        self._assignments.close(why)
        self._logs.close()

    async def _rule(self, server: Server) -> int:
        """One reign after the other."""
        holder = self._settings.holder or f"{host_name()}/{server.address}"
        while not self._stop.is_set():
            taking = asyncio.create_task(self._take_term(holder))
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait((taking, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not taking.done():
                taking.cancel()
                await asyncio.gather(taking, return_exceptions=True)
                return OK
            reign = taking.result()
            try:
                end = await self._reign_once(reign)
            except TermLostError as error:
                log.error("the term is lost; this control plane ends", why=str(error))
                return TERM_LOST
            if end is _End.STOPPED:
                return OK
        return OK

    async def _take_term(self, holder: str) -> _Reign:
        """Waits until the store and its lease are ours, and restores the state."""
        told = ""
        while True:
            try:
                return await self._try_to_take_term(holder)
            except LeaseHeldError as error:
                self._waiting_for = f"standing by: {error}"
            except StoreUnavailableError as error:
                self._waiting_for = str(error)
            self._gatekeeper.closed = self._waiting_for
            if self._waiting_for.partition(" and was heard")[0] != told:
                told = self._waiting_for.partition(" and was heard")[0]
                log.warning("waiting", why=self._waiting_for)
            await asyncio.sleep(_TRY_AGAIN_SECONDS)

    async def _try_to_take_term(self, holder: str) -> _Reign:
        if self._store is None:
            self._store = await asyncio.to_thread(Store.open, self._settings.database_url)
        store = self._store
        self._clock.not_before(await asyncio.to_thread(store.last_instant))
        at_least = Term(self._obeyed + 1)
        term = await asyncio.to_thread(store.acquire_term, holder, self._clock.now(), at_least)
        tail = EventTail(self._clock)
        writer = store.start_writer(term, tail)
        renewing = asyncio.create_task(self._keep_lease_while_loading(writer))
        try:
            restored = await asyncio.to_thread(store.expects_strangers)
            state, replayed = await asyncio.to_thread(_loaded, store)
        except BaseException:
            await writer.close()
            raise
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        decisions = PatientLog(StoredDecisions(writer))
        recovering = restored or bool(state.silent_nodes)
        return _Reign(term, state, writer, tail, decisions, replayed, restored, recovering)

    def _begin(self, reign: _Reign) -> None:
        assert self._store is not None
        self._reign = reign
        self._rise.clear()
        self._history.open(self._store)
        self._feed.replace(reign.state)
        self._assignments.begin(reign.term, reign.state)
        self._contacts.restart()
        self._door.open(reign.writer)
        self._gatekeeper.closed = ""
        self._telemetry.term.set(reign.term)
        self._telemetry.deciding.set(1)
        log.info(
            "a reign begins",
            term=reign.term,
            jobs=len(reign.state.jobs),
            nodes=len(reign.state.nodes),
            replayed=reign.replayed,
        )
        if not self.ready.is_set():
            self.ready.set()
            self._say_ready(reign.term)

    def _say_ready(self, term: Term) -> None:
        line = json.dumps(
            {"ready": True, "grpc": self.address, "metrics": self.metrics_address, "term": term}
        )
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        target = self._settings.ready_file
        if target is not None:
            fresh = target.with_name(f".{target.name}.new")
            fresh.write_text(line + "\n")
            fresh.replace(target)

    async def _reign_once(self, reign: _Reign) -> _End:
        """Decides until the reign ends.

        Raises:
            TermLostError: Someone else decides now.
        """
        self._begin(reign)
        grace = seconds(reign.state.settings.recovery_grace_seconds)
        loop = Loop(
            clock=self._clock,
            events=PacedEvents(
                reign.tail, self._clock, self._clock.monotonic, self._telemetry.cycle_began
            ),
            log=reign.log,
            actions=self._assignments,
            policies=self._policies,
            term=reign.term,
            hold_until=after(self._clock.now(), grace) if reign.recovering else Instant(0),
            expects_strangers=reign.restored,
            observe=lambda report: self._observe(reign, report),
        )
        work: list[Coroutine[Any, Any, Any]] = [
            loop.run(reign.state),
            self._keep_lease(reign),
            self._keep_checkpoints(reign),
            self._contacts.watch(),
            self._learner.run(),
            self._searcher.run(),
            self._forecaster.run(),
            self._rise.wait(),
            self._stop.wait(),
        ]
        tasks = [asyncio.create_task(part) for part in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._door.close(
                "the control plane stops" if self._stop.is_set() else "a higher term is taken"
            )
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._telemetry.deciding.set(0)
            await self._end(reign, tasks)
        for task in done:
            task.result()
        return _End.STOPPED if self._stop.is_set() else _End.RISES

    async def _end(self, reign: _Reign, tasks: Sequence["asyncio.Task[Any]"]) -> None:
        failed = any(not task.cancelled() and task.exception() is not None for task in tasks)
        if self._stop.is_set() and not failed:
            with contextlib.suppress(StoreError, TermLostError):
                await self._save_checkpoint(reign)
                await reign.writer.give_up_lease()
        await reign.writer.close()
        self._waiting_for = "the control plane takes a higher term"
        self._reign = None

    def _observe(self, reign: _Reign, report: CycleReport) -> None:
        """After each cycle: tell the metrics, then everyone who watches."""
        recovering = report.outcome is None
        if reign.recovering and not recovering:
            log.info("deciding again", term=reign.term, silent=report.state.silent_nodes)
        reign.recovering = recovering
        self._telemetry.cycle_ended(report)
        self._learner.look(report.events)
        self._forecaster.look(report.events)
        folded = report.events[-1].sequence if report.events else None
        if not len(reign.tail):
            # Whatever has a lower number than the last decision came out of the tail already.
            folded = report.state.last_sequence
        said = report.outcome.said if report.outcome is not None else None
        self._feed.publish(report.state, folded, said)
        self._searcher.look(report)

    async def _keep_lease_while_loading(self, writer: GroupCommitWriter) -> None:
        """So that nobody takes the term from one that has a large state to load."""
        while True:
            wait_seconds = await self._renew_lease(writer)
            await asyncio.sleep(wait_seconds)

    async def _keep_lease(self, reign: _Reign) -> None:
        while True:
            wait_seconds = await self._renew_lease(reign.writer)
            if reign.restored and not reign.recovering:
                # Not before: one that ends during the grace has not heard everyone.
                with contextlib.suppress(StoreUnavailableError):
                    await reign.writer.expect_strangers_no_more()
                    reign.restored = False
            await asyncio.sleep(wait_seconds)

    async def _renew_lease(self, writer: GroupCommitWriter) -> float:
        """Renews it, or tries; returns the seconds until the next time."""
        try:
            await writer.renew_lease(self._clock.now())
        except StoreUnavailableError as error:
            log.warning("the lease could not be renewed yet", why=str(error))
            return _TRY_AGAIN_SECONDS
        return _RENEW_SECONDS

    async def _keep_checkpoints(self, reign: _Reign) -> None:
        """A checkpoint every so often, and pruning behind it, so that the store stays small."""
        saved = reign.state.last_sequence
        if reign.replayed > _CHECKPOINT_AFTER_EVENTS:
            saved = SequenceNumber(-1)
        pruned_ns = self._clock.monotonic()
        while True:
            if self._feed.state.last_sequence != saved:
                try:
                    saved = await self._save_checkpoint(reign)
                except StoreUnavailableError as error:
                    log.warning("no checkpoint could be saved yet", why=str(error))
            if self._clock.monotonic() - pruned_ns > seconds(self._settings.prune_seconds):
                pruned_ns = self._clock.monotonic()
                await self._prune(reign.writer)
            await asyncio.sleep(self._settings.checkpoint_seconds)

    async def _prune(self, writer: GroupCommitWriter) -> None:
        retention, jobs = Retention(), self._feed.state.jobs
        # Only they can have too many, and to ask the store of each job would keep it busy.
        long = [uid for uid, job in jobs.items() if job.progress.step >= retention.losses]
        try:
            now = self._clock.now()
            rows = await writer.prune(retention, now, lambda: self._feed.state.jobs, long)
        except StoreUnavailableError as error:
            log.warning("the store could not be pruned yet", why=str(error))
        else:
            log.info("pruned", rows=rows)

    async def _save_checkpoint(self, reign: _Reign) -> SequenceNumber:
        state = self._feed.state
        await reign.writer.save_checkpoint(
            state, ClusterState, state.last_sequence, self._clock.now()
        )
        return state.last_sequence

    async def _watch_health(self, server: Server, page: MetricsPage | None) -> None:
        """Serving while submissions would be accepted."""
        while True:
            serving = self._reign is not None and self.condition in ("deciding", "recovering")
            await server.health.set(serving=serving and not self._door.closed)
            if page is not None:
                page.tell(self.condition)
            await asyncio.sleep(_LOOK_SECONDS)


@contextlib.asynccontextmanager
async def running(settings: ServeSettings) -> AsyncIterator[ControlPlane]:
    """A control plane inside this process, stopped at the end; for tests and for embedding."""
    plane = ControlPlane(settings)
    task = asyncio.create_task(plane.run())
    ready = asyncio.create_task(plane.ready.wait())
    try:
        await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield plane
    finally:
        ready.cancel()
        plane.stop()
        await task


async def serve(settings: ServeSettings) -> int:
    """Runs a control plane until SIGTERM or SIGINT; returns the exit code."""
    plane = ControlPlane(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, plane.stop)
    try:
        return await plane.run()
    except (ListenRefusedError, RolesFileError, StoreError) as error:
        # What it had begun with it may not be able to go on with.
        what, code = ("ends", BROKEN) if plane.ready.is_set() else ("cannot start", REFUSED)
        log.error(what, why=str(error))
        sys.stderr.write(f"the control plane {what}: {error}\n")
        return code


def _restore(settings: RestoreSettings) -> int:
    try:
        restore(pieces_of(settings.source), settings.database_url, WallClock().now())
    except (StoreError, OSError) as error:
        sys.stderr.write(f"nothing was restored: {error}\n")
        return REFUSED
    sys.stdout.write(f"restored {settings.source}; start the control plane on it\n")
    return OK


def main(arguments: Sequence[str] | None = None) -> int:
    """The process: reads settings, does what they say, returns the exit code."""
    settings = read_settings(sys.argv[1:] if arguments is None else arguments)
    if isinstance(settings, RestoreSettings):
        return _restore(settings)
    set_up_logs(as_json=settings.log_format == "json", level=settings.log_level)
    # A state of many thousand records lives long; looking through it for cycles often is in vain.
    gc.set_threshold(*_COLLECT_AFTER)
    # The same loop in C, where it is installed: a fifth less work for each call.
    with asyncio.Runner(loop_factory=_quick_loop()) as runner:
        return runner.run(serve(settings))


def _quick_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
