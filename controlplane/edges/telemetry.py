"""Metrics for Prometheus and lines of the log, made from what the loop tells after each cycle.

Names follow what users of peers have dashboards for (``docs``: peers' tables). Labels are queues,
methods, and closed sets; never jobs, nodes or uids, which would grow without bound. Models are
labels of what the state keeps a bounded number of.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import CollectorRegistry, Gauge, Histogram, Info, start_http_server
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controlplane.domain.action import ChangePlan, EndAttempt, StartAttempt, StopAttempt
from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.event import JobSubmitted
from controlplane.domain.forecast import Forecasts
from controlplane.domain.ids import JobUid
from controlplane.domain.lifecycle import FINISHED, HOLDING, Stage
from controlplane.domain.node import Contact
from controlplane.domain.policy import Optimality
from controlplane.domain.proposal import ProposalUse, Verdict
from controlplane.domain.record import JobRecord
from controlplane.domain.switch_price import SwitchPrice
from controlplane.engine.cycle import Outcome
from controlplane.engine.loop import CycleReport
from controlplane.engine.state import ClusterState

_WAIT_SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
_CYCLE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_CHANGE_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_STOOD_STILL_SECONDS = (0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600)
_SHARES = (0.5, 0.9)
_CALL_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)
_READY = ("deciding", "recovering", "standing by")
_SILENT_SECONDS = 60.0

log = structlog.get_logger(__name__)


class _AcceleratorSeconds(Collector):
    """Integrates how many accelerators are in which state, also between two cycles."""

    def __init__(self, monotonic: Callable[[], int]) -> None:
        self._monotonic = monotonic
        self._now: Counter[tuple[str, str]] = Counter()
        self._totals: Counter[tuple[str, str]] = Counter()
        self._at_ns = monotonic()
        # The page is read by a thread of the HTTP server.
        self._lock = threading.Lock()

    def set(self, held: Counter[tuple[str, str]]) -> None:
        """From now on, so many accelerators are in each (queue, state)."""
        with self._lock:
            self._advance()
            self._now = held

    def _advance(self) -> None:
        now_ns = self._monotonic()
        for key, count in self._now.items():
            self._totals[key] += count * (now_ns - self._at_ns)
        self._at_ns = now_ns

    def collect(self) -> Iterable[Metric]:
        """The totals up to this moment."""
        family = CounterMetricFamily(
            "headrace_accelerator_seconds",
            "Accelerator-seconds by what they were spent on; queue is empty where no job held it.",
            labels=("queue", "state"),
        )
        with self._lock:
            self._advance()
            for (queue, state), total in sorted(self._totals.items()):
                family.add_metric((queue, state), total / SECOND)
        yield family


class _SwitchPrices(Collector):
    """What switches cost, as the state has it: also of those before this process began."""

    def __init__(self) -> None:
        # Replaced as a whole: the page is read by a thread of the HTTP server.
        self.now: Mapping[str, SwitchPrice] = {}

    def collect(self) -> Iterable[Metric]:
        """A summary of each sort."""
        name = "headrace_switch_price_seconds"
        found = Metric(
            name,
            "How long jobs did not train for a switch, by model and accelerators; the quantiles "
            "are of the last 64, and of models that are told apart the last 256 sorts stay.",
            "summary",
        )
        for price in self.now.values():
            labels = {
                "model": price.model,
                "accelerators_before": str(price.accelerators_before),
                "accelerators_after": str(price.accelerators_after),
                "kind": price.kind.value.lower(),
            }
            for share in _SHARES:
                found.add_sample(name, {**labels, "quantile": str(share)}, price.quantile(share))
            found.add_sample(f"{name}_count", labels, price.count)
            found.add_sample(f"{name}_sum", labels, price.seconds)
        yield found


class _Tally:
    """Jobs and accelerators by queue, kept up with each job that changes: a cluster has many
    jobs, and a cycle changes few.
    """

    def __init__(self) -> None:
        self.pending: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.held: Counter[tuple[str, str]] = Counter()

    def count(self, record: JobRecord, sign: int) -> None:
        """Adds (1) or takes back (-1) what one job contributes."""
        queue, attempt = record.job.spec.queue, record.attempt
        if record.stage in HOLDING and attempt is not None:
            self.running[queue] += sign
            for unit in attempt.units:
                if attempt.holds(unit.index):
                    self.held[queue, record.stage.value.lower()] += sign * len(unit.accelerators)
        elif record.stage in (Stage.QUEUED, Stage.BACKING_OFF) and not record.withdrawn:
            self.pending[queue] += sign
            if record.reason is not None:
                self.reasons[record.reason.code.value] += sign


class Telemetry:
    """Every metric of the control plane, in a registry of its own."""

    def __init__(self, version: str, monotonic: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._monotonic = monotonic
        self._cycle_began_ns: int | None = None
        self._stops: dict[JobUid, tuple[Instant, str]] = {}
        self._seen: ClusterState = ClusterState()
        self._labels: dict[Gauge, set[str]] = {}
        self._refused_why: tuple[str, ...] = ()
        self._refused_jobs: Mapping[JobUid, str] = {}
        self._proposal_seen: tuple[int, set[Verdict]] = (-1, set())
        self._tally = _Tally()
        self._accelerator_seconds = _AcceleratorSeconds(monotonic)
        self.registry.register(self._accelerator_seconds)
        self._switch_prices = _SwitchPrices()
        self.registry.register(self._switch_prices)
        Info("headrace_build", "Version of the control plane.", registry=self.registry).info(
            {"version": version}
        )
        self._define_cluster()
        self._define_flow()
        self._define_search()

    def _define_cluster(self) -> None:
        gauge, registry = Gauge, self.registry
        self.term = gauge("headrace_term", "Term; 0 while standing by.", registry=registry)
        self.deciding = gauge("headrace_deciding", "1 while this decides.", registry=registry)
        self._pending = gauge(
            "headrace_pending_jobs", "Jobs that wait.", ("queue",), registry=registry
        )
        self._running = gauge(
            "headrace_running_jobs", "Jobs that hold accelerators.", ("queue",), registry=registry
        )
        self._unadmitted = gauge(
            "headrace_unadmitted_jobs", "Waiting jobs by why.", ("reason",), registry=registry
        )
        self._quota = gauge(
            "headrace_queue_nominal_quota",
            "Quota in accelerators; absent where there is none.",
            ("queue",),
            registry=registry,
        )
        self._usage = gauge(
            "headrace_queue_resource_usage", "Accelerators held.", ("queue",), registry=registry
        )
        self._accelerators = gauge(
            "headrace_accelerators", "Accelerators by state.", ("state",), registry=registry
        )
        self._round = {
            "value": gauge(
                "headrace_round_value",
                "What the last decision is worth, by the policy's own measure; 0 if it has none.",
                registry=registry,
            ),
            "bound": gauge(
                "headrace_round_bound",
                "What no decision could have exceeded, in the same measure; proven.",
                registry=registry,
            ),
            "gap": gauge(
                "headrace_round_gap_ratio",
                "By which share of the bound the last decision may be too low.",
                registry=registry,
            ),
        }
        self._nodes = gauge("headrace_nodes", "Nodes by contact.", ("contact",), registry=registry)

    def _define_flow(self) -> None:
        registry = self.registry
        self._admission_wait = Histogram(
            "headrace_admission_wait_time_seconds",
            "From submission to the first start.",
            ("queue",),
            buckets=_WAIT_SECONDS,
            registry=registry,
        )
        self._execution = Histogram(
            "headrace_execution_time_seconds",
            "From the first start to the end, by result.",
            ("result",),
            buckets=_WAIT_SECONDS,
            registry=registry,
        )
        self._cycle = Histogram(
            "headrace_admission_attempt_duration_seconds",
            "One cycle: fold, decide, log, publish.",
            buckets=_CYCLE_SECONDS,
            registry=registry,
        )
        self._decisions = CounterMetric(
            "headrace_decisions", "Decisions by reason.", ("reason",), registry=registry
        )
        self._refused = CounterMetric(
            "headrace_policy_refused", "Decisions not carried out.", ("policy",), registry=registry
        )
        self._refused_targets = CounterMetric(
            "headrace_policy_refused_targets",
            "Jobs about which alone a decision was not carried out, in each decision anew.",
            ("policy",),
            registry=registry,
        )
        self._evicted = CounterMetric(
            "headrace_evicted_jobs", "Attempts stopped or ended.", ("reason",), registry=registry
        )
        self._reconfigurations = CounterMetric(
            "headrace_reconfigurations", "Planned changes ordered.", ("reason",), registry=registry
        )
        self._reconfiguration = Histogram(
            "headrace_reconfiguration_duration_seconds",
            "From the order to stop to the first step under the new plan.",
            ("reason",),
            buckets=_CHANGE_SECONDS,
            registry=registry,
        )
        self._stood_still = Histogram(
            "headrace_switch_stood_still_seconds",
            "How long jobs did not train for a change of plan or place, by how it was made.",
            ("kind",),
            buckets=_STOOD_STILL_SECONDS,
            registry=registry,
        )
        self._events = CounterMetric(
            "headrace_events_appended", "Events in the log by kind.", ("kind",), registry=registry
        )
        self._calls = Histogram(
            "headrace_grpc_server_handling_seconds",
            "Calls by method and code.",
            ("grpc_method", "grpc_code"),
            buckets=_CALL_SECONDS,
            registry=registry,
        )

    def _define_search(self) -> None:
        self._gained = Gauge(
            "headrace_search_gain_ratio",
            "By which share the last round that took what a longer search proposed is worth more.",
            registry=self.registry,
        )
        self._proposals = CounterMetric(
            "headrace_search_proposals",
            "What longer searches proposed, by what became of it; one that is looked at in several "
            "rounds counts for each verdict once.",
            ("verdict",),
            registry=self.registry,
        )

        self._forecast_made = Gauge(
            "headrace_forecast_made_timestamp_seconds",
            "Instant of the state of which was last predicted when jobs start and end.",
            registry=self.registry,
        )
        self._forecast_seconds = Gauge(
            "headrace_forecast_seconds", "What that took to play.", registry=self.registry
        )
        self._forecast_failures = CounterMetric(
            "headrace_forecast_failures", "How often it failed.", registry=self.registry
        )

    def forecast_made(self, forecasts: Forecasts) -> None:
        """When jobs start and end was predicted."""
        self._forecast_made.set(forecasts.made_at / SECOND)
        self._forecast_seconds.set(forecasts.took_seconds)

    def forecast_failed(self) -> None:
        """It could not be predicted."""
        self._forecast_failures.inc()

    def call_handled(self, method: str, code: str, seconds: float) -> None:
        """A gRPC call was answered."""
        self._calls.labels(method.rsplit("/", 1)[-1], code).observe(seconds)

    def cycle_began(self) -> None:
        """Events came in and a cycle begins."""
        self._cycle_began_ns = self._monotonic()

    def cycle_ended(self, report: CycleReport) -> None:
        """Counts what a cycle did."""
        if self._cycle_began_ns is not None:
            self._cycle.observe((self._monotonic() - self._cycle_began_ns) / SECOND)
            self._cycle_began_ns = None
        for numbered in report.events:
            self._events.labels(numbered.event.kind).inc()
        state, before = report.state, self._seen
        self._seen = state
        self._switch_prices.now = state.switch_prices
        if report.outcome is not None:
            self._count_decision(report)
        events = (numbered.event for numbered in report.events)
        fresh = {event.job.uid for event in events if isinstance(event, JobSubmitted)}
        for uid, record in state.jobs.items():
            earlier = before.jobs.get(uid)
            if earlier is not record:
                if earlier is not None:
                    self._tally.count(earlier, -1)
                self._tally.count(record, 1)
                self._follow(earlier, record, fresh=uid in fresh)
        if any(uid not in state.jobs for uid in before.jobs):
            for uid in before.jobs.keys() - state.jobs.keys():
                self._tally.count(before.jobs[uid], -1)
                self._stops.pop(uid, None)
        if state is not before:
            self._measure(state)

    def _count_decision(self, report: CycleReport) -> None:
        outcome = report.outcome
        assert outcome is not None
        best = outcome.optimality or Optimality(0.0, 0.0, {})
        for part, shown in self._round.items():
            shown.set(getattr(best, part))
        self._tell_proposal(outcome.proposal)
        self._tell_refused(outcome, report.state.settings.policy)
        if outcome.changes_nothing:
            return
        decided = outcome.decided
        self._events.labels(decided.kind).inc()
        sequence = report.state.last_sequence
        told = dict(decided.reasons)
        for action in decided.actions:
            reason = getattr(action, "reason", None)
            if reason is not None:
                told[action.uid] = reason
            log.info(
                "decided",
                decision=sequence,
                term=decided.term,
                job=action.uid,
                action=action.kind,
                attempt=getattr(action, "attempt", None),
                reason=reason.code.value if reason is not None else None,
                message=reason.message if reason is not None else None,
            )
            if isinstance(action, StopAttempt | EndAttempt):
                code = action.reason.code.value
                self._evicted.labels(code).inc()
                if isinstance(action, StopAttempt):
                    self._stops[action.uid] = (decided.at, code)
            elif isinstance(action, ChangePlan):
                self._reconfigurations.labels(action.reason.code.value).inc()
            elif isinstance(action, StartAttempt) and action.uid in self._stops:
                self._reconfigurations.labels(self._stops[action.uid][1]).inc()
        for reason in told.values():
            self._decisions.labels(reason.code.value).inc()

    def _tell_proposal(self, use: ProposalUse | None) -> None:
        """Counts and logs what became of a proposal, each verdict once."""
        if use is None:
            return
        if use.made_of != self._proposal_seen[0]:
            self._proposal_seen = (use.made_of, set())
        if use.verdict is Verdict.TAKEN:
            self._gained.set(use.gained)
        if use.verdict not in self._proposal_seen[1]:
            self._proposal_seen[1].add(use.verdict)
            self._proposals.labels(use.verdict.value).inc()
            log.info(
                "a proposal of a longer search",
                made_of=use.made_of,
                verdict=use.verdict.value,
                why=use.text,
                jobs=len(use.jobs),
            )

    def _tell_refused(self, outcome: Outcome, policy: str) -> None:
        """Counts what was not carried out, and logs what is new of it."""
        if outcome.refused_whole:
            self._refused.labels(policy).inc()
            if outcome.refused != self._refused_why:
                log.error("policy refused", policy=policy, why=outcome.refused)
        elif outcome.refused_jobs:
            self._refused_targets.labels(policy).inc(len(outcome.refused_jobs))
            for uid, why in outcome.refused_jobs.items():
                if self._refused_jobs.get(uid) != why:
                    log.error("a job's target refused", policy=policy, job=uid, why=why)
        self._refused_why, self._refused_jobs = outcome.refused, outcome.refused_jobs

    def _follow(self, before: JobRecord | None, after: JobRecord, *, fresh: bool) -> None:
        """Counts what one job's change means. A job that was not seen before is a ``fresh`` one,
        or it was restored, and what happened to it was counted by another process.
        """
        job = after.job
        first = after.first_started_at
        waited_so_far = fresh if before is None else before.first_started_at is None
        if first is not None and waited_so_far:
            waited = max(0, first - job.submitted_at) / SECOND
            self._admission_wait.labels(job.spec.queue).observe(waited)
        if after.stage in FINISHED:
            self._stops.pop(after.uid, None)
            if before is not None and before.stage not in FINISHED and first and after.finished_at:
                ran = max(0, after.finished_at - first) / SECOND
                self._execution.labels(after.stage.value).observe(ran)
        if before is not None and after.switches and after.switches != before.switches:
            # A record changes its switches by one at a time, but a batch may fold several.
            known = set(before.switches)
            for switch in after.switches:
                if switch not in known:
                    kind = switch.kind.value.lower()
                    self._stood_still.labels(kind).observe(switch.stood_still_seconds)
        attempt = after.attempt
        stopped = self._stops.get(after.uid)
        if stopped is not None and attempt is not None and attempt.running_at is not None:
            at, code = stopped
            if attempt.started_at >= at:
                took = max(0, attempt.running_at - at) / SECOND
                self._reconfiguration.labels(code).observe(took)
                del self._stops[after.uid]

    def _measure(self, state: ClusterState) -> None:
        """Sets the gauges from the tally."""
        tally = self._tally
        queues = {str(name): 0 for name in state.queues}
        held = Counter({key: count for key, count in tally.held.items() if count})
        self._add_unheld(state, held)
        self._accelerator_seconds.set(held)
        usage: Counter[str] = Counter()
        by_state: Counter[str] = Counter()
        for (queue, name), count in held.items():
            by_state[name] += count
            if queue:
                usage[queue] += count
        quotas = {
            queue.name: queue.quota_accelerators
            for queue in state.queues.values()
            if queue.quota_accelerators is not None
        }
        contacts = Counter({contact.value: 0 for contact in Contact})
        contacts.update(node.contact.value for node in state.nodes.values())
        self._set(self._pending, queues | +tally.pending)
        self._set(self._running, queues | +tally.running)
        self._set(self._usage, queues | +usage)
        self._set(self._unadmitted, +tally.reasons)
        self._set(self._accelerators, by_state)
        self._set(self._quota, quotas)
        self._set(self._nodes, contacts)

    def _set(self, gauge: Gauge, values: Mapping[Any, int]) -> None:
        """Sets a gauge's series and drops those of labels that are gone."""
        labels = {str(label): value for label, value in values.items()}
        for gone in self._labels.get(gauge, set()) - labels.keys():
            gauge.remove(gone)
        for label, value in labels.items():
            gauge.labels(label).set(value)
        self._labels[gauge] = set(labels)

    @staticmethod
    def _add_unheld(state: ClusterState, held: Counter[tuple[str, str]]) -> None:
        total = unhealthy = stray = 0
        for node in state.nodes.values():
            if node.contact is Contact.LOST:
                continue
            total += len(node.node.accelerators)
            unhealthy += sum(
                # One that a job still holds is the job's until it lets go.
                bool(a.unhealthy) and (node.id, a.id) not in state.holders
                for a in node.node.accelerators
            )
            stray += sum(len(unit.accelerators) for unit in node.strays)
        held["", "unhealthy"] = unhealthy
        held["", "stray"] = stray
        held["", "idle"] = max(0, total - sum(held.values()))


class MetricsPage:
    """``/metrics`` on a port of its own; beside it ``/live`` and ``/ready``, for who starts us.

    Live is a process whose loop turns. Ready is one that decides or would: one that stands by for
    another's lease is ready too, one whose store is away is not.
    """

    def __init__(
        self, registry: CollectorRegistry, address: str, monotonic: Callable[[], int]
    ) -> None:
        """Starts to listen.

        Raises:
            OSError: The address cannot be bound.
        """
        host, _, port = address.rpartition(":")
        self._monotonic = monotonic
        self._told = (monotonic(), "the control plane starts")
        self._server: WSGIServer
        self._server, self._thread = start_http_server(
            int(port), addr=host.strip("[]"), registry=registry
        )
        self._metrics: Any = self._server.get_app()
        self._server.set_app(self._answer)
        self.address = f"{host}:{self._server.server_port}"

    def tell(self, condition: str) -> None:
        """The loop turns, and this is how the control plane is."""
        self._told = (self._monotonic(), condition)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path not in ("/live", "/ready"):
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        at_ns, condition = self._told
        silent_seconds = (self._monotonic() - at_ns) / SECOND
        good = silent_seconds < _SILENT_SECONDS
        if not good:
            condition = f"nothing was heard of the loop for {silent_seconds:.0f} s"
        elif path == "/ready":
            good = condition.startswith(_READY)
        status = "200 OK" if good else "503 Service Unavailable"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{condition}\n".encode()]

    def close(self) -> None:
        """Ends the page."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
