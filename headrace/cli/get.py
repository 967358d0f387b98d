"""``headrace get``: jobs, nodes and queues, once or as they change."""

import difflib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.api.generated import jobs_pb2
from headrace.cli import views
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import Format, document, note, note_outage, say, table
from headrace.cli.session import Session
from headrace.cli.tables import Column
from headrace.client.client import Client

DEFAULT_NAMESPACE = "default"

OBJECTS = {
    "job": ("job", "jobs", "trainingjob", "trainingjobs"),
    "node": ("node", "nodes"),
    "queue": ("queue", "queues"),
}
"""Kinds with a name each, by how they may be spelled."""

DESCRIBED = {**OBJECTS, "fit": ("fit", "fits")}
"""Kinds of which one can be told about."""

LISTED = {
    **DESCRIBED,
    "observation": ("observation", "observations"),
    "fit": ("fit", "fits"),
    "switch": ("switch", "switches"),
}
"""Kinds that can be listed."""


def kind_of(word: str, kinds: Mapping[str, Sequence[str]] = OBJECTS) -> str:
    """The kind that a word names.

    Raises:
        CommandError: It names none.
    """
    spellings = {spelling: kind for kind, words in kinds.items() for spelling in words}
    if word.lower() in spellings:
        return spellings[word.lower()]
    near = difflib.get_close_matches(word.lower(), spellings, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    *others, last = (words[1] for words in kinds.values())
    wanted = f"{', '.join(others)} or {last}"
    raise CommandError(ExitCode.USAGE, f"wanted {wanted}, got {word!r}{hint}")


def not_there(kind: str, names: Sequence[str], hint: str) -> CommandError:
    """What is missing, in the words in which the control plane says it of one."""
    several = "s" if len(names) > 1 else ""
    told = f"no {kind}{several} {', '.join(map(repr, names))}; {hint}"
    return CommandError(ExitCode.NOT_FOUND, told)


def jobs_not_there(names: Sequence[str]) -> CommandError:
    """The same of jobs, as namespace/name."""
    return not_there("job", names, "`headrace get jobs` lists all")


@dataclass(frozen=True, slots=True)
class Scope:
    """Which jobs: an empty namespace is every one, no names are all of them."""

    namespace: str
    names: tuple[str, ...] = ()
    queue: str = ""

    def selector(self) -> jobs_pb2.JobSelector:
        """As the API wants it; several names are sorted out here."""
        name = self.names[0] if len(self.names) == 1 else ""
        return jobs_pb2.JobSelector(namespace=self.namespace, name=name, queue=self.queue)

    def covers(self, job: jobs_pb2.Job) -> bool:
        """Whether the job is one of these."""
        return not self.names or job.name in self.names


def split(name: str, namespace: str) -> tuple[str, str]:
    """``namespace/name`` or ``name`` as (namespace, name)."""
    before, slash, after = name.partition("/")
    return (before, after) if slash else (namespace, before)


def find_job(client: Client, name: str, namespace: str) -> jobs_pb2.Job:
    """One job by name, or ``namespace/name``."""
    return client.get_job(*split(name, namespace))


def get_jobs(session: Session, scope: Scope, output: Format) -> None:
    """Prints the jobs of a scope."""
    with session.client() as client:
        jobs = [job for job in client.list_jobs(scope.selector()) if scope.covers(job)]
    missing = sorted(set(scope.names) - {job.name for job in jobs})
    print_jobs(jobs, scope, output)
    if missing:
        if scope.namespace:
            raise jobs_not_there([f"{scope.namespace}/{name}" for name in missing])
        raise not_there("job", missing, "`headrace get jobs -A` lists those of every namespace")
    if not jobs and output in (Format.TABLE, Format.WIDE):
        where = (
            f"namespace {scope.namespace} (-A shows all)" if scope.namespace else "any namespace"
        )
        of_queue = f" of queue {scope.queue}" if scope.queue else ""
        note(f"no jobs{of_queue} in {where}")


def print_jobs(
    jobs: list[jobs_pb2.Job],
    scope: Scope,
    output: Format,
    *,
    heading: bool = True,
    seen: list[int] | None = None,
) -> None:
    """Prints jobs in a format; ``seen`` keeps rows that come later under those above."""
    match output:
        case Format.NAME:
            for job in jobs:
                say(f"job/{_named(job, scope)}")
        case Format.JSON | Format.YAML:
            documents = [views.job_document(job) for job in jobs]
            alone = len(scope.names) == 1 and len(documents) == 1
            document(documents[0] if alone else views.listed(documents, "TrainingJob"), output)
        case _:
            if not jobs:
                return
            wide = output is Format.WIDE
            rows = [
                views.job_row(job, time.time(), wide=wide, named=_named(job, scope)) for job in jobs
            ]
            columns = views.WIDE_JOB_COLUMNS if wide else views.JOB_COLUMNS
            table(columns, rows, wide=wide, heading=heading, seen=seen)


def _named(job: jobs_pb2.Job, scope: Scope) -> str:
    return job.name if scope.namespace else f"{job.namespace}/{job.name}"


def watch_jobs(session: Session, scope: Scope, output: Format) -> None:
    """Prints the jobs of a scope, and each again whenever it changed."""
    with session.client() as client:
        present: list[jobs_pb2.Job] = []
        synced = False
        seen: list[int] = []
        for message in client.watch_jobs(scope.selector(), on_outage=note_outage):
            if message.kind == jobs_pb2.WatchJobsResponse.KIND_SYNCED:
                if not synced:
                    print_jobs(present, scope, output, seen=seen)
                synced = True
            elif not scope.covers(message.job):
                continue
            elif message.kind == jobs_pb2.WatchJobsResponse.KIND_GONE:
                note(f"job/{_named(message.job, scope)} is gone")
            elif synced:
                _print_change(message.job, scope, output, seen)
            else:
                present.append(message.job)


def _print_change(job: jobs_pb2.Job, scope: Scope, output: Format, seen: list[int]) -> None:
    if output in (Format.JSON, Format.YAML):
        if output is Format.YAML:
            say("---")
        document(views.job_document(job), output)
    else:
        print_jobs([job], scope, output, heading=False, seen=seen)


@dataclass(frozen=True, slots=True)
class _Listed:
    """A node or queue in both of its shapes."""

    row: list[str]
    document: dict[str, Any]


def get_others(session: Session, kind: str, names: tuple[str, ...], output: Format) -> None:
    """Prints nodes or queues."""
    wide = output is Format.WIDE
    with session.client() as client:
        if kind == "node":
            columns: tuple[Column, ...] = views.WIDE_NODE_COLUMNS if wide else views.NODE_COLUMNS
            found = {
                each.node.name: _Listed(views.node_row(each, wide=wide), views.plain(each))
                for each in client.nodes()
            }
        else:
            columns = views.QUEUE_COLUMNS
            found = {
                each.name: _Listed(views.queue_row(each), views.plain(each))
                for each in client.queues()
            }
    chosen = {name: found[name] for name in (names or sorted(found)) if name in found}
    match output:
        case Format.NAME:
            for name in chosen:
                say(f"{kind}/{name}")
        case Format.JSON | Format.YAML:
            documents = [each.document for each in chosen.values()]
            alone = len(names) == 1 and len(documents) == 1
            document(documents[0] if alone else views.listed(documents, kind.title()), output)
        case _ if chosen:
            table(columns, [each.row for each in chosen.values()], wide=wide)
        case _:
            note(f"no {kind}s")
    missing = sorted(set(names) - found.keys())
    if missing:
        raise not_there(kind, missing, f"there are {', '.join(sorted(found)) or 'none'}")
