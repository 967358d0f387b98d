"""``headrace top``: the cluster in one live screen.

``picture`` makes the lines from plain facts, so that it can be tested and used by the demo.
"""

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.api.counted import counted
from headrace.api.generated import admin_pb2, jobs_pb2
from headrace.api.plain_text import plain
from headrace.cli import estimates, views
from headrace.cli.output import has_colour, is_terminal, show, width
from headrace.cli.session import Session
from headrace.cli.tables import ELLIPSIS, STAGE_COLOURS, Column, age, bar, laid_out
from headrace.client.client import Client
from headrace.client.trouble import CallError, Kind

_BAR_WIDTH = 10
_DECISIONS_SHOWN = 8
_DECISIONS_KEPT = 64
_COLUMNS = (
    Column("JOB", gives_way=1),
    Column("STATE", colours=STAGE_COLOURS),
    Column("PLAN", gives_way=2, wraps=True),
    Column("ACC", right=True),
    Column("PROGRESS"),
    Column("STEPS", right=True),
    Column("LOSS", right=True),
    Column("ETA", right=True),
)
_NODE_COLUMNS = (
    Column("NODE", gives_way=1),
    Column("STATE", colours=STAGE_COLOURS),
    Column("ACCELERATORS", gives_way=2),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What one picture shows.

    Attributes:
        cluster: Totals and state.
        jobs: Every job.
        nodes: Every node.
        decisions: Newest events of cycles that decided something, oldest first.
        now: Seconds since 1970.
        names: What jobs are called that may be gone, by uid.
    """

    cluster: admin_pb2.GetClusterResponse
    jobs: Sequence[jobs_pb2.Job]
    nodes: Sequence[admin_pb2.NodeStatus]
    decisions: Sequence[jobs_pb2.LoggedEvent]
    now: float
    names: Mapping[str, str] = field(default_factory=dict)


class Watcher:
    """Gathers facts; remembers the last decisions, so that only new events are asked for."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._after: int | None = None
        self._decisions: list[jobs_pb2.LoggedEvent] = []
        self._names: dict[str, str] = {}

    def facts(self) -> Facts:
        """What is so now.

        Raises:
            CallError: The control plane cannot be reached, or refused.
        """
        cluster = self._client.cluster()
        if self._after is None:
            # The beginning of a long log is nobody's last decision.
            self._after = max(0, cluster.last_sequence - 500)
        for event in self._client.list_events(after_sequence=self._after):
            self._after = event.sequence
            if event.job_name:
                self._names[event.uid] = event.job_name
            if event.kind == "CycleDecided":
                self._decisions.append(event)
        self._decisions = self._decisions[-_DECISIONS_KEPT:]
        jobs, nodes = self._client.list_jobs(), self._client.nodes()
        self._remember(jobs, nodes)
        return Facts(cluster, jobs, nodes, tuple(self._decisions), time.time(), self._names)

    def _remember(
        self, jobs: Sequence[jobs_pb2.Job], nodes: Sequence[admin_pb2.NodeStatus]
    ) -> None:
        """Keeps the names that a picture may need: jobs go, and are still told of."""
        self._names |= {job.uid: job.name for job in jobs}
        told = {each.uid for event in self._decisions for each in views.decisions(event)}
        told.update(holder for node in nodes for holder in node.holders.values())
        told.update(job.uid for job in jobs)
        self._names = {uid: name for uid, name in self._names.items() if uid in told}


def picture(facts: Facts, *, columns: int, colour: bool = False) -> list[str]:
    """The screen as lines no wider than ``columns``."""
    cluster = facts.cluster
    several = len({job.namespace for job in facts.jobs}) > 1
    names = {**facts.names, **{job.uid: job.name for job in facts.jobs}}
    lines = [
        f"headrace {plain(cluster.version)}  {plain(cluster.policy)}  {cluster.state}  "
        f"{cluster.accelerators_held}/{counted(cluster.accelerators_total, 'accelerator')}  "
        f"{sum(1 for job in facts.jobs if job.status.units)} of {len(facts.jobs)} jobs hold them",
        "",
    ]
    lines += laid_out(
        _NODE_COLUMNS,
        [_node_row(node, names) for node in facts.nodes],
        width=columns,
        colour=colour,
    )
    lines.append("")
    # Those that hold accelerators first, finished ones last.
    jobs = sorted(
        facts.jobs, key=lambda job: (bool(job.status.finished_at.seconds), not job.status.units)
    )
    lines += laid_out(
        _COLUMNS, [_job_row(job, facts.now, several) for job in jobs], width=columns, colour=colour
    )
    if facts.decisions:
        lines += ["", "LAST DECISIONS"]
        decided = [each for event in facts.decisions for each in views.decisions(event)]
        for each in decided[-_DECISIONS_SHOWN:]:
            about = views.called(each.uid, names.get(each.uid, ""))
            told = ", because ".join(filter(None, (each.action, each.why)))
            told = plain(" ".join(told.split()))  # a rank's last lines are several
            lines.append(f"{age(facts.now - each.at):>4}  {about}: {told}")
    return [line if "\x1b" in line else _cut(line, columns) for line in lines]


def _cut(line: str, columns: int) -> str:
    return line if len(line) <= columns else line[: columns - 1] + ELLIPSIS


def _job_row(job: jobs_pb2.Job, now: float, several: bool) -> list[str]:
    done = job.status.progress
    share = done.step / done.steps_total if done.steps_total else 0.0
    return [
        f"{job.namespace}/{job.name}" if several else job.name,
        views.state(job),
        job.status.plan,
        str(views.held(job)),
        bar(share, _BAR_WIDTH),
        views.progress(job),
        views.loss(job),
        estimates.eta(job, now),
    ]


def _node_row(status: admin_pb2.NodeStatus, names: Mapping[str, str]) -> list[str]:
    slots = []
    for slot in status.node.accelerators:
        holder = status.holders.get(slot.id, "")
        slots.append(
            "!" if slot.unhealthy else views.called(holder, names.get(holder, "")) or "free"
        )
    return [
        status.node.name,
        views.contact(status),
        " | ".join(slots),
    ]


def top(session: Session, *, once: bool, interval_seconds: float) -> None:
    """Shows the live screen until Ctrl-C; one picture if nobody watches."""
    with session.client(patience_seconds=0.0 if not once else 5.0) as client:
        if once or not is_terminal(sys.stdout):
            for line in picture(
                Watcher(client).facts(), columns=width(), colour=has_colour(sys.stdout)
            ):
                show(line)
            return
        live(client, interval_seconds=interval_seconds)


def live(
    client: Client, *, interval_seconds: float = 1.0, until: Callable[[Facts], bool] | None = None
) -> None:
    """Refreshes the screen until ``until`` says so (never by default).

    An unreachable control plane leaves the last picture standing, with a note.

    Raises:
        CallError: The control plane refused.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    colour = has_colour(sys.stdout)
    watcher, tick = Watcher(client), threading.Event()
    lines: list[str] = ["connecting ..."]
    console = Console(no_color=not colour, highlight=False)
    with Live(console=console, screen=until is None, auto_refresh=False) as screen:
        while True:
            finished = False
            try:
                facts = watcher.facts()
                lines = picture(facts, columns=console.width, colour=colour)
                finished = until is not None and until(facts)
                shown = lines
            except CallError as trouble:
                if trouble.kind not in (Kind.UNREACHABLE, Kind.TIMED_OUT):
                    raise
                shown = [*lines, "", "the control plane does not answer; trying again ..."]
            screen.update(Text.from_ansi("\n".join(shown)), refresh=True)
            if finished:
                return
            tick.wait(interval_seconds)
