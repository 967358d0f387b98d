"""Folds the event log into the history that the report shows.

A decision is read right after the last event that it had seen (``folded_up_to``), as in the control
plane's own replay, whatever came through the door in between.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.api.counted import counted
from headrace.api.plan import ExecutionPlan
from headrace.cli import report_model as model
from headrace.cli.report_facts import EventFact, JobFact, LossFact, ReportFacts

_ENDED_BADLY = frozenset({"Failed", "Lost"})
_WAITS = frozenset(
    {
        "WaitingForAccelerators",
        "BehindEarlierJob",
        "QuotaExceeded",
        "QueueMissing",
        "QueueNotForNamespace",
        "NoMatchingAccelerator",
        "ExceedsCluster",
        "BatchNotDivisible",
        "WaitingForRelease",
        "ControlPlaneRecovering",
        "BackingOff",
        "PolicyRefused",
    }
)

_SAID = {"RunningAsPlanned": "runs as planned", "Suspended": "is suspended"}


def history_of(facts: ReportFacts) -> model.History:
    """The history that the facts tell."""
    folding = _Folding(facts)
    for order, event in enumerate(replayed(facts.events)):
        folding.fold(order, event.body)
    return folding.history()


def replayed(events: Iterable[EventFact]) -> list[EventFact]:
    """The events in the order in which the control plane folds them."""

    def place(event: EventFact) -> tuple[int, int, int]:
        if event.body.get("kind") == "CycleDecided":
            return int(event.body.get("folded_up_to", event.sequence)), 1, event.sequence
        return event.sequence, 0, event.sequence

    return sorted(events, key=place)


def in_words(code: str) -> str:
    """A CamelCase reason code as words: ``ShrunkForOthers`` -> ``shrunk for others``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", code).lower()


def sentence(reason: Mapping[str, Any] | None) -> str:
    """The sentence of a reason; its code in words if it has none."""
    if not reason:
        return ""
    return str(reason.get("message") or in_words(str(reason.get("code", ""))))


def why_stopped(reason: Mapping[str, Any] | None) -> str:
    """The sentence of a planned stop, the code first: ``dp4 -> dp2`` alone is no why."""
    told, code = sentence(reason), in_words(str((reason or {}).get("code", "")))
    return told if told == code or not code else f"{code}: {told}"


def plan_text(plan: Mapping[str, Any]) -> str:
    """A plan as the log holds it, in its short form."""
    return str(ExecutionPlan.from_parts(plan))


@dataclass(frozen=True, slots=True)
class _Held:
    """A unit that has not released its accelerators.

    Attributes:
        node: Its node.
        accelerators: What it holds.
        start_ns: Since when, or since when under this plan.
        order: The same as a position in the log.
        plan: Plan under which it trains, or is to train once it has joined.
        part: The part of its attempt under that plan. The next one: it has not joined yet. An
            earlier one: it has left.
        leaving_ns: When it was asked to leave; None if it stays.
    """

    node: str
    accelerators: tuple[str, ...]
    start_ns: int
    order: int
    plan: str
    part: int
    leaving_ns: int | None = None


@dataclass(slots=True)
class _Attempt:
    """An attempt with its parts so far, and why the next one was last asked for."""

    spans: list[model.AttemptSpan]
    units: dict[int, _Held] = field(default_factory=dict)
    why_asked: str = ""

    @property
    def span(self) -> model.AttemptSpan:
        """The present part."""
        return self.spans[-1]

    def know(self, **more: Any) -> None:
        """Adds to what is known of the present part."""
        self.spans[-1] = replace(self.spans[-1], **more)

    def stopped(self, held: _Held, step: int) -> None:
        """A unit stopped as planned, or left, after that step."""
        if held.part <= len(self.spans):
            span = self.spans[held.part - 1]
            steps = tuple(sorted({*span.stopped_at_steps, step}))
            self.spans[held.part - 1] = replace(span, stopped_at_steps=steps)

    def goes_on(self, plan: str, live: model.LiveChange, at: int) -> None:
        """The next part begins, with the units that are in it by now."""
        before = self.span
        # Who stops may be heard of before the change that came before its stop.
        stops = before.stop_ns is not None
        later = tuple(step for step in before.stopped_at_steps if stops and step > live.step)
        earlier = tuple(step for step in before.stopped_at_steps if step not in later)
        self.know(end_ns=at, stopped_at_steps=earlier)
        then = [unit for unit in self.units.values() if unit.part == before.part + 1]
        self.spans.append(
            replace(
                before,
                plan=plan,
                accelerators=sum(len(unit.accelerators) for unit in then),
                start_ns=at,
                part=before.part + 1,
                came_by=live,
                first_step_ns=at,
                stop_ns=at if stops else None,
                stopped_at_steps=later,
            )
        )


@dataclass(slots=True)
class _Folding:
    """What is known part of the way through the log."""

    facts: ReportFacts
    attempts: dict[tuple[str, int], _Attempt] = field(default_factory=dict)
    blocks: list[model.Block] = field(default_factory=list)
    bands: list[model.Band] = field(default_factory=list)
    open_bands: dict[tuple[str, str, str], tuple[int, str]] = field(default_factory=dict)
    lanes: dict[tuple[str, str], str] = field(default_factory=dict)
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    submitted: dict[str, int] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)
    progressed: dict[str, int] = field(default_factory=dict)
    saved: dict[str, int] = field(default_factory=dict)
    missed: dict[str, set[int]] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    registered: set[str] = field(default_factory=set)
    lines: list[model.Line] = field(default_factory=list)
    last_ns: int = 0

    def __post_init__(self) -> None:
        for node in self.facts.nodes:
            for slot in node.accelerators:
                self.lanes[node.name, slot.id] = slot.type
        for job in self.facts.jobs:
            self.names[job.uid] = (job.namespace, job.name)

    def label(self, uid: str) -> str:
        namespace, name = self.names.get(uid, ("", uid))
        return name if namespace in ("", "default") else f"{namespace}/{name}"

    def say(self, at: int, uid: str, what: str, why: str = "", *, decided: bool = False) -> None:
        self.lines.append(model.Line(at, uid, self.label(uid), what, why, decided))

    def say_of_node(self, at: int, node: str, what: str, why: str = "") -> None:
        self.lines.append(model.Line(at, "", node, what, why, decided=False))

    def fold(self, order: int, body: Mapping[str, Any]) -> None:
        """Takes one event in. Kinds that the report does not show change nothing."""
        at = int(body.get("at", 0))
        self.last_ns = max(self.last_ns, at)
        kind = body.get("kind")
        if kind in ("JobSubmitted", "JobUpdated"):
            self._submitted(at, body["job"], again=kind == "JobUpdated")
        elif kind == "JobWithdrawn":
            self.say(at, body["uid"], "is withdrawn")
        elif kind == "CycleDecided":
            self._decided(order, at, body)
        elif kind == "JobProgressed":
            self._progressed(at, body)
        elif kind == "PlanChanged":
            self._plan_changed(order, at, body)
        elif kind == "PlanRefused":
            self.say(at, body["uid"], f"cannot go over to {body['plan']}", str(body["message"]))
        elif kind == "CheckpointMissed":
            self._checkpoint_missed(at, body)
        elif kind == "UnitExited":
            self._exited(order, at, body)
        elif kind == "PolicyChanged":
            self.say_of_node(at, "cluster", f"is decided by {body['settings'].get('policy')}")
        elif kind is not None:
            self._fold_of_node(order, at, str(kind), body)

    def _fold_of_node(self, order: int, at: int, kind: str, body: Mapping[str, Any]) -> None:
        if kind == "NodeRegistered":
            self._registered(at, body["node"])
        elif kind == "NodeLost":
            self._lost(order, at, body["node"])
        elif kind == "NodeDrained":
            node, drained = body["node"], bool(body["drained"])
            self.say_of_node(at, node, "is drained" if drained else "takes work again")
            self._band(at, node, "", "drained", "drained" if drained else "")
        elif kind == "NodesClosed":
            for each in body["nodes"]:
                self.say_of_node(at, each["node"], f"is {each['closed'].lower()} in Kubernetes")
        elif kind == "NodeRemoved":
            self.say_of_node(at, body["node"], "is removed")
        elif kind == "AcceleratorHealthChanged":
            node, slot, problem = body["node"], body["accelerator"], str(body["problem"])
            what = "is unhealthy" if problem else "is well again"
            self.say_of_node(at, f"{node} {slot}", what, problem)
            self._band(at, node, slot, "unhealthy", problem)

    def _submitted(self, at: int, job: Mapping[str, Any], *, again: bool) -> None:
        uid = str(job["uid"])
        self.names[uid] = (str(job["namespace"]), str(job["name"]))
        if uid not in self.submitted and not again:
            self.submitted[uid] = at
            self.say(at, uid, "is submitted")
        elif again:
            self.say(at, uid, f"is changed to generation {job['generation']}")

    def _registered(self, at: int, node: Mapping[str, Any]) -> None:
        name, slots = str(node["id"]), node["accelerators"]
        for slot in slots:
            self.lanes.setdefault((name, str(slot["id"])), str(slot.get("type", "")))
        # Agents introduce themselves again after every lost connection; that is not worth a line.
        if name not in self.registered or (name, "", "lost") in self.open_bands:
            self.registered.add(name)
            self.say_of_node(at, name, f"registers with {counted(len(slots), 'accelerator')}")
        self._band(at, name, "", "lost", "")

    def _lost(self, order: int, at: int, node: str) -> None:
        self.say_of_node(at, node, "is lost", "its agent was silent for longer than allowed")
        self._band(at, node, "", "lost", "its agent was silent")
        for (uid, number), attempt in sorted(self.attempts.items()):
            for unit, held in sorted(attempt.units.items()):
                if held.node == node:
                    why = f"node {node} was lost"
                    self._release(order, at, (uid, number), unit, "Lost", why)

    def _band(self, at: int, node: str, slot: str, kind: str, note: str) -> None:
        """Opens a band with a note, or closes an open one without."""
        key = (node, slot, kind)
        if note:
            self.open_bands.setdefault(key, (at, note))
        elif key in self.open_bands:
            start, text = self.open_bands.pop(key)
            self.bands.append(model.Band(node, slot, kind, start, at, text))

    def _progressed(self, at: int, body: Mapping[str, Any]) -> None:
        uid, progress = str(body["uid"]), body["progress"]
        self.progressed[uid] = int(progress["step"])
        attempt = self.attempts.get((uid, int(body["attempt"])))
        # A report without a loss tells where the attempt began, not a step of its own.
        if attempt and attempt.span.first_step_ns is None and progress.get("loss") is not None:
            attempt.know(first_step_ns=at)
        saved = int(progress.get("checkpoint_step", 0))
        if saved > self.saved.get(uid, 0) and (missed := self.missed.pop(uid, set())):
            why = f"{len(missed)} before it {'was' if len(missed) == 1 else 'were'} missed"
            self.say(at, uid, f"has a checkpoint again, of step {saved}", why)
        self.saved[uid] = saved

    def _checkpoint_missed(self, at: int, body: Mapping[str, Any]) -> None:
        """The first of a gap is told; a full disk may let hundreds follow, which are counted."""
        uid, step = str(body["uid"]), int(body["step"])
        if step <= self.saved.get(uid, 0):
            return
        if uid not in self.missed:
            what = f"trains on without a checkpoint of step {step}"
            self.say(at, uid, what, sentence(body.get("reason")))
        self.missed.setdefault(uid, set()).add(step)

    def _plan_changed(self, order: int, at: int, body: Mapping[str, Any]) -> None:
        """One part of an attempt ends, and another begins with those that stay and that come."""
        uid, number, after = str(body["uid"]), int(body["attempt"]), str(body["after"])
        attempt, step = self.attempts.get((uid, number)), int(body["step"])
        if attempt is None or not attempt.units:
            return
        before = attempt.span
        if after == body["before"]:
            self.say(at, uid, f"goes on as {after}, as it did")
            return
        if before.came_by is not None and step <= before.came_by.step:
            return  # told twice
        for unit, held in attempt.units.items():
            if held.part == before.part and held.leaving_ns is None:
                went = f"went on as {after}"
                self.blocks += _blocks((uid, number), unit, held, at, order, went)
                attempt.units[unit] = replace(
                    held, start_ns=at, order=order, plan=after, part=before.part + 1
                )
        still = float(body["stood_still_seconds"])
        live = model.LiveChange(step, round(still * 1e9), attempt.why_asked)
        attempt.goes_on(after, live, at)
        size = _size(before.accelerators, attempt.span.accelerators)
        self.say(
            at,
            uid,
            f"goes over from {before.plan} to {after}{size} after step {step}",
            f"it stood still for {still:.2f} s",
        )

    def _exited(self, order: int, at: int, body: Mapping[str, Any]) -> None:
        uid, number, end = str(body["uid"]), int(body["attempt"]), body["exit"]
        outcome, why, unit = str(end["outcome"]), sentence(end.get("reason")), int(end["unit"])
        attempt = self.attempts.get((uid, number))
        if attempt is None or unit not in attempt.units:
            return
        held = attempt.units[unit]
        if outcome in _ENDED_BADLY and held.part == attempt.span.part and not attempt.span.broke:
            what = f"loses unit {unit} of attempt {number}"
            self.say(at, uid, what if outcome == "Lost" else f"fails in attempt {number}", why)
        if outcome == "Stopped":
            attempt.stopped(held, int(end.get("step", 0)))
        self._release(order, at, (uid, number), unit, outcome, why)

    def _release(
        self, order: int, at: int, key: tuple[str, int], unit: int, outcome: str, why: str
    ) -> None:
        attempt = self.attempts[key]
        held, span, bad = attempt.units.pop(unit), attempt.span, outcome in _ENDED_BADLY
        left = held.part < span.part or (held.leaving_ns is not None and not bad)
        self.blocks += _blocks(key, unit, held, at, order, "Left" if left else outcome)
        if held.part > span.part:
            what = f"lets unit {unit} of attempt {key[1]} go, which has not joined"
            self.say(at, key[0], what, why)
        elif left:
            self.say(at, key[0], f"lets unit {unit} of attempt {key[1]} go")
        else:
            outcomes = tuple(sorted({*span.outcomes, outcome}))
            attempt.know(outcomes=outcomes, why=why if bad and not span.broke else span.why)
        if attempt.units:
            return
        attempt.know(end_ns=at)
        if attempt.span.outcomes == ("Succeeded",):
            self.finished[key[0]] = at
            self.say(at, key[0], f"succeeds in attempt {key[1]}")

    def _decided(self, order: int, at: int, body: Mapping[str, Any]) -> None:
        ordered = set()
        for action in body["actions"]:
            uid = str(action["uid"])
            ordered.add(uid)
            what = self._act(order, at, action)
            stops = action["kind"] == "StopAttempt"
            self.told[uid] = sentence(action.get("reason"))
            why = why_stopped(action.get("reason")) if stops else self.told[uid]
            self.say(at, uid, what, why, decided=True)
        for uid, reason in body.get("reasons", ()):
            why = sentence(reason)
            if uid in ordered or self.told.get(uid) == why:
                continue
            self.told[uid] = why
            code = str(reason.get("code"))
            what = "waits" if code in _WAITS else _SAID.get(code, in_words(code))
            self.say(at, uid, what, why if why != in_words(code) else "", decided=True)

    def _act(self, order: int, at: int, action: Mapping[str, Any]) -> str:
        """Takes one action in and says it as a predicate."""
        uid, kind = str(action["uid"]), action["kind"]
        if kind == "StartAttempt":
            return self._started(order, at, action)
        if kind in ("FailJob", "ForgetJob"):
            self.finished.setdefault(uid, at)
            gone = "is forgotten, with its checkpoints" if action.get("purge") else "is forgotten"
            return "fails for good" if kind == "FailJob" else gone
        number = int(action["attempt"])
        attempt = self.attempts.get((uid, number))
        if kind == "StopAttempt" and attempt:
            if attempt.span.stop_ns is None:
                why = why_stopped(action.get("reason"))
                attempt.know(stop_ns=at, stop_why=why)
            return f"checkpoints and stops attempt {number} ({attempt.span.plan})"
        if kind == "ChangePlan":
            where = self._asked(order, at, attempt, action) if attempt else ""
            return f"is asked to go on in attempt {number} as {plan_text(action['plan'])}{where}"
        return f"ends attempt {number}" if kind == "EndAttempt" else f"stops attempt {number}"

    def _started(self, order: int, at: int, action: Mapping[str, Any]) -> str:
        uid, number, placement = str(action["uid"]), int(action["attempt"]), action["placement"]
        plan = plan_text(placement["plan"])
        units = self._held(order, at, placement["units"], plan, 1)
        count = sum(len(unit.accelerators) for unit in units.values())
        span = model.AttemptSpan(uid, number, plan, count, at)
        self.attempts[uid, number] = _Attempt([span], units)
        nodes = ", ".join(sorted({unit.node for unit in units.values()}))
        return f"starts attempt {number} as {span.plan} on {nodes}"

    def _held(
        self, order: int, at: int, units: Sequence[Mapping[str, Any]], plan: str, part: int
    ) -> dict[int, _Held]:
        """What units hold from now on, by their index."""
        held = {
            int(unit["index"]): _Held(
                str(unit["node"]), tuple(unit["accelerators"]), at, order, plan, part
            )
            for unit in units
        }
        for each in held.values():
            for slot in each.accelerators:
                self.lanes.setdefault((each.node, slot), "")
        return held

    def _asked(self, order: int, at: int, attempt: _Attempt, action: Mapping[str, Any]) -> str:
        """Another plan shall come, perhaps with other units: new ones hold something from now on,
        others until they have left.
        """
        attempt.why_asked = why_stopped(action.get("reason"))
        plan, part = plan_text(action["plan"]), attempt.span.part + 1
        then = self._held(order, at, action.get("units") or (), plan, part)
        if not then:
            return ""
        for unit, held in attempt.units.items():
            if unit not in then and held.leaving_ns is None:
                attempt.units[unit] = replace(held, leaving_ns=at)
        for unit, held in then.items():
            attempt.units.setdefault(unit, held)
        count = sum(len(held.accelerators) for held in then.values())
        return _size(attempt.span.accelerators, count)

    def history(self) -> model.History:
        """The history at the end of the log."""
        facts = self.facts
        self._sharpen_first_steps()
        begin, end = self._range()
        blocks = list(self.blocks)
        for key, attempt in self.attempts.items():
            for unit, held in attempt.units.items():
                blocks += _blocks(key, unit, held, end, len(facts.events), "")
        bands = [
            *self.bands,
            *(model.Band(*key, start, end, note) for key, (start, note) in self.open_bands.items()),
        ]
        spans = sorted(
            (span for attempt in self.attempts.values() for span in attempt.spans),
            key=lambda span: (span.uid, span.place),
        )
        passages = model.transitions_of(spans)
        jobs = self._jobs(end, spans, passages, blocks)
        return model.History(
            start_ns=begin,
            end_ns=end,
            lanes=tuple(model.Lane(*lane, kind) for lane, kind in sorted(self.lanes.items())),
            blocks=tuple(
                sorted(blocks, key=lambda b: (b.start_ns, b.node, b.accelerator, b.attempt))
            ),
            bands=tuple(sorted(bands, key=lambda b: (b.start_ns, b.node, b.accelerator, b.kind))),
            attempts=tuple(spans),
            transitions=passages,
            jobs=tuple(jobs),
            losses=tuple(self._series(job.uid, passages) for job in jobs if self._points(job.uid)),
            lines=tuple(sorted(self.lines, key=lambda line: line.at_ns)),
            first_sequence=min((event.sequence for event in facts.events), default=0),
        )

    def _range(self) -> tuple[int, int]:
        """Left and right end of the timeline, without idle time before the first job."""
        end = self.last_ns
        if any(attempt.units for attempt in self.attempts.values()):
            end = max(end, self.facts.cluster.now_ns)
        begins = [
            *self.submitted.values(),
            *(one.spans[0].start_ns for one in self.attempts.values()),
        ]
        begin = min(begins, default=self.last_ns)
        return begin, max(end, begin)

    def _points(self, uid: str) -> tuple[LossFact, ...]:
        return tuple(self.facts.losses.get(uid, ()))

    def _series(self, uid: str, passages: Iterable[model.Transition]) -> model.LossSeries:
        mine = [passage for passage in passages if passage.uid == uid]
        return model.series_of(uid, self._points(uid), mine)

    def _sharpen_first_steps(self) -> None:
        """Takes the time of an attempt's first loss where it is known and earlier."""
        for uid in self.facts.losses:
            for point in self._points(uid):
                attempt = self.attempts.get((uid, point.attempt))
                if attempt is None or not point.at_ns:
                    continue
                known = attempt.spans[0].first_step_ns
                if known is None or point.at_ns < known:
                    attempt.spans[0] = replace(attempt.spans[0], first_step_ns=point.at_ns)

    def _jobs(
        self,
        end_ns: int,
        spans: list[model.AttemptSpan],
        passages: Iterable[model.Transition],
        blocks: Iterable[model.Block],
    ) -> list[model.JobSummary]:
        shown = {job.uid: job for job in self.facts.jobs}
        held: dict[str, int] = {}
        for block in blocks:
            held[block.uid] = held.get(block.uid, 0) + block.end_ns - block.start_ns
        mine: dict[str, list[model.AttemptSpan]] = {}
        for span in spans:
            mine.setdefault(span.uid, []).append(span)
        passed: dict[str, list[model.Transition]] = {}
        for passage in passages:
            passed.setdefault(passage.uid, []).append(passage)
        return [
            self._summary(
                uid,
                shown.get(uid),
                end_ns,
                held.get(uid, 0),
                mine.get(uid, []),
                passed.get(uid, []),
            )
            for uid in dict.fromkeys((*self.submitted, *shown, *mine))
        ]

    def _summary(
        self,
        uid: str,
        shown: JobFact | None,
        end_ns: int,
        held_ns: int,
        spans: list[model.AttemptSpan],
        passages: list[model.Transition],
    ) -> model.JobSummary:
        submitted = self.submitted.get(uid)
        since = (
            submitted if submitted is not None else min((s.start_ns for s in spans), default=end_ns)
        )
        if submitted is None and shown is not None:
            # Its beginning is older than the kept log; only the control plane still knows.
            held_ns = max(held_ns, round(shown.held_accelerator_seconds * 1e9))
        # No event says that retries are used up; the control plane does.
        ended_ns = (shown.finished_ns if shown else None) or end_ns
        until = self.finished.get(uid, ended_ns)
        running = [span for span in spans if span.end_ns is None]
        return model.JobSummary(
            uid=uid,
            label=self.label(uid),
            stage=shown.stage if shown else "Gone",
            plan=shown.plan if shown else (running[-1].plan if running else ""),
            step=max(shown.step if shown else 0, self.progressed.get(uid, 0)),
            steps_total=shown.steps_total if shown else 0,
            submitted_ns=submitted,
            waiting_ns=model.waiting_ns(since, until, spans, passages),
            held_ns=held_ns,
            reason=shown.reason if shown else "",
        )


def _size(before: int, then: int) -> str:
    """Says how many accelerators it will be, if that is news."""
    return "" if before == then else f" on {counted(then, 'accelerator')} instead of {before}"


def _blocks(
    key: tuple[str, int], unit: int, held: _Held, end_ns: int, order: int, outcome: str
) -> list[model.Block]:
    """A block for each accelerator of the unit."""
    return [
        model.Block(
            node=held.node,
            accelerator=slot,
            uid=key[0],
            attempt=key[1],
            unit=unit,
            plan=held.plan,
            start_ns=held.start_ns,
            end_ns=end_ns,
            open=not outcome,
            outcome=outcome,
            order=(held.order, order),
            part=held.part,
            leaving_ns=held.leaving_ns,
        )
        for slot in held.accelerators
    ]
