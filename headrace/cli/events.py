"""``headrace events``: the event log, for people or as JSON."""

import json
import time
from dataclasses import dataclass
from typing import Any

from headrace.api.generated import jobs_pb2
from headrace.api.status_document import iso
from headrace.cli import views
from headrace.cli.get import find_job
from headrace.cli.output import Format, document, note, say, table
from headrace.cli.session import Session
from headrace.client.client import Client

_PERIOD_SECONDS = 1.0
_LOOKED_BACK = 5000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events.

    Attributes:
        after: Only those behind this sequence number.
        progress: Whether the steps that jobs made are told too.
        watch: Whether new ones are told as they come.
    """

    after: int = 0
    progress: bool = False
    watch: bool = False


def events(session: Session, name: str, namespace: str, wanted: Wanted, output: Format) -> None:
    """Prints events, oldest first."""
    watch, after = wanted.watch, wanted.after
    patience = 300.0 if watch else 5.0
    with session.client(patience_seconds=patience) as client:
        uid = find_job(client, name, namespace).uid if name else ""
        heading = True
        seen: list[int] = []
        while True:
            found = client.list_events(uid, after)
            told = found if wanted.progress else _without_steps(found)
            if told:
                _show(told, output, heading=heading, several=watch, seen=seen)
                heading = False
            if found:
                after = found[-1].sequence
            if not watch:
                if not told and output in (Format.TABLE, Format.WIDE):
                    note("no events but steps: --progress tells them" if found else "no events")
                return
            time.sleep(_PERIOD_SECONDS)


def _show(
    found: list[jobs_pb2.LoggedEvent],
    output: Format,
    *,
    heading: bool,
    several: bool,
    seen: list[int],
) -> None:
    match output:
        case Format.NAME:
            for event in found:
                say(f"event/{event.sequence}")
        case Format.JSON | Format.YAML if several:
            for event in found:
                if output is Format.YAML:
                    say("---")
                document(as_document(event), output)
        case Format.JSON | Format.YAML:
            document(views.listed([as_document(event) for event in found], "Event"), output)
        case _:
            rows = [views.event_row(event, time.time()) for event in found]
            wide = output is Format.WIDE
            table(views.EVENT_COLUMNS, rows, wide=wide, heading=heading, seen=seen)


def as_document(event: jobs_pb2.LoggedEvent) -> dict[str, Any]:
    """An event as a document, with its body as such instead of as text."""
    told: dict[str, Any] = {
        "sequence": event.sequence,
        "at": iso(event.at),
        "kind": event.kind,
        "uid": event.uid,
        "node": event.node,
        "job": event.job_name,
        "message": event.message,
    }
    if event.reason.code:
        told["reason"] = views.plain(event.reason)
    if event.body_json:
        told["body"] = json.loads(event.body_json)
    return told


def latest(client: Client, uid: str, count: int) -> list[jobs_pb2.LoggedEvent]:
    """The newest events of a job, without its steps, of which there are too many."""
    # A long log is not read from its beginning for a few lines of its end.
    after = max(0, client.cluster().last_sequence - _LOOKED_BACK)
    return _without_steps(client.list_events(uid, after))[-count:]


def _without_steps(found: list[jobs_pb2.LoggedEvent]) -> list[jobs_pb2.LoggedEvent]:
    """Without what a job tells all the time while it trains, among which nothing else is seen."""
    return [each for each in found if each.kind != "JobProgressed"]
