"""The report as one HTML file without scripts, fonts or pictures from elsewhere.

The same history gives the same bytes. Whatever users chose (names, reasons) is escaped.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from headrace.cli.plan_words import explained
from headrace.cli.report_charts import (
    Look,
    clock_text,
    loss_chart,
    seconds_text,
    text,
    timeline,
)
from headrace.cli.report_facts import ClusterFact, NodeFact, ReportFacts
from headrace.cli.report_fold import history_of
from headrace.cli.report_model import History, JobSummary, Line, LossSeries, Transition
from headrace.cli.report_style import STYLE

_CHARTS_MAX = 100
_CHARTS_OPEN = 6
_JOBS_MAX = 500
_LINES_MAX = 600
_PASSAGES_MAX = 12
_PLANS_MAX = 24
_POINTS_BUDGET = 40_000
"""Points of loss curves over the whole page; about 12 bytes each."""


def page(facts: ReportFacts) -> str:
    """The whole page."""
    history = history_of(facts)
    look = Look.of(history)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"/>',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\"/>",
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        f"<title>Headrace report</title><style>{STYLE}</style></head><body>",
        _header(history, facts.cluster, facts.nodes),
        "<main>",
        _timeline(history, look),
        _losses(history, look),
        _jobs(history, look),
        _lines(history, look),
        _nodes(facts.nodes),
        "</main>",
        "</body></html>\n",
    ]
    return "\n".join(parts)


def utc_text(nanoseconds: int) -> str:
    """An instant for people, to the second."""
    when = datetime.fromtimestamp(nanoseconds // 1_000_000_000, tz=UTC)
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _header(history: History, cluster: ClusterFact, nodes: Sequence[NodeFact]) -> str:
    accelerators = [slot for node in nodes for slot in node.accelerators]
    kinds = sorted({slot.type for slot in accelerators if slot.type})
    facts = [
        ("Nodes", str(len(nodes))),
        ("Accelerators", f"{len(accelerators)} {('(' + ', '.join(kinds) + ')') if kinds else ''}"),
        ("Policy", cluster.policy or "unknown"),
        ("Jobs", str(len(history.jobs))),
        ("Reconfigurations", str(sum(one.planned for one in history.transitions))),
        ("Accelerators in use", _use(history)),
        ("Control plane", f"{cluster.version or 'unknown'}, term {cluster.term}, {cluster.state}"),
    ]
    begin = f"{utc_text(history.start_ns)}, {seconds_text(history.end_ns - history.start_ns)}"
    cut = (
        f'<p class="note">Events before number {history.first_sequence} were pruned from the log; '
        "what happened before is not shown.</p>"
        if history.first_sequence > 1
        else ""
    )
    cells = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts
    )
    return (
        f'<header><h1>Headrace report</h1><p class="when">From {text(begin)}</p>'
        f"<dl>{cells}</dl>{cut}</header>"
    )


def _use(history: History) -> str:
    room = (history.end_ns - history.start_ns) * len(history.lanes)
    held = sum(block.end_ns - block.start_ns for block in history.blocks)
    return f"{100 * held / room:.0f} % of the time" if room > 0 else "none"


def _timeline(history: History, look: Look) -> str:
    if not history.lanes:
        body = '<p class="note">No node has registered, so there is nothing to draw.</p>'
    else:
        body = _legend(history, look) + timeline(history, look)
    return f"<section><h2>Who held which accelerator</h2>{body}</section>"


def _legend(history: History, look: Look) -> str:
    drawn = {block.uid for block in history.blocks}
    named = [job for job in history.jobs if job.uid in drawn][:12]
    items = [f"<li>{_swatch(look.colours[job.uid])}{text(job.label)}</li>" for job in named]
    items.append('<li><i class="swatch starting"></i>start to first step</li>')
    if any(one.stop_ns is not None for one in history.attempts) or any(
        block.leaving_ns is not None for block in history.blocks
    ):
        items.append('<li><i class="swatch stopping"></i>asked to stop or leave</li>')
    if any(block.outcome in ("Failed", "Lost") for block in history.blocks):
        items.append('<li><i class="swatch broken"></i>failed or lost</li>')
    kinds = sorted({band.kind for band in history.bands})
    items.extend(f'<li><i class="swatch {kind}"></i>{kind}</li>' for kind in kinds)
    return f'<ul class="legend">{"".join(items)}</ul>'


def _swatch(colour: int) -> str:
    return f'<i class="swatch c{colour}"></i>'


def _losses(history: History, look: Look) -> str:
    if not history.losses:
        return '<section><h2>Loss</h2><p class="note">No step has been reported.</p></section>'
    shown = history.losses[:_CHARTS_MAX]
    buckets = min(700, max(20, _POINTS_BUDGET // (6 * len(shown))))
    charts = [_loss(one, look, number, buckets) for number, one in enumerate(shown)]
    missing = len(history.losses) - len(shown)
    note = f'<p class="note">{_count(missing, "more curve")} left out.</p>' if missing else ""
    kinds = {mark.planned for one in shown for mark in one.marks}
    legend = "".join(
        f'<li><i class="rule {kind}"></i>{meaning}</li>'
        for planned, kind, meaning in (
            (True, "planned", "reconfigured: plan before → after"),
            (False, "retry", "retried after a failure"),
        )
        if planned in kinds
    )
    if legend:
        legend = f'<ul class="legend">{legend}</ul>'
    return f"<section><h2>Loss</h2>{legend}{''.join(charts)}{note}</section>"


def _loss(series: LossSeries, look: Look, number: int, buckets: int) -> str:
    label, colour = look.labels.get(series.uid, series.uid), look.colours.get(series.uid, 0)
    chart = loss_chart(series, label, colour, buckets)
    opened = " open" if number < _CHARTS_OPEN else ""
    return f"<details{opened}><summary>{_swatch(colour)}{text(label)}</summary>{chart}</details>"


def _jobs(history: History, look: Look) -> str:
    if not history.jobs:
        return '<section><h2>Jobs</h2><p class="note">No job was submitted.</p></section>'
    rows = [_job(job, history.of_job(job.uid), look) for job in history.jobs[:_JOBS_MAX]]
    missing = len(history.jobs) - _JOBS_MAX
    note = f'<p class="note">{_count(missing, "more job")} left out.</p>' if missing > 0 else ""
    head = "".join(
        f"<th{kind}>{name}</th>"
        for name, kind in (
            ("Job", ""),
            ("State", ""),
            ("Plan now", ""),
            ("Steps", ' class="n"'),
            ("Reconfigurations and their cost", ""),
            ("Retries", ' class="n"'),
            ("Waited", ' class="n"'),
            ("Accelerator time", ' class="n"'),
        )
    )
    return (
        '<section><h2>Jobs</h2><div class="scroll"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="note">A reconfiguration in memory costs the time that the ranks stood still, '
        "as they measured it; one by a restart, the time from the decision to stop until the first "
        "step under the new plan. Waiting counts the time without accelerators, reconfigurations "
        f"apart.</p>{_plans(history)}{note}</section>"
    )


def _plans(history: History) -> str:
    """What the short forms in the page mean."""
    seen = list(dict.fromkeys(block.plan for block in history.blocks))[:_PLANS_MAX]
    return f'<p class="note">Plans: {text("; ".join(map(explained, seen)))}.</p>' if seen else ""


def _job(job: JobSummary, passages: Sequence[Transition], look: Look) -> str:
    planned = [passage for passage in passages if passage.planned]
    retries = len(passages) - len(planned)
    steps = f"{job.step} of {job.steps_total}" if job.steps_total else str(job.step)
    stage = text(job.stage)
    if job.reason and job.stage not in ("Running", "Succeeded"):
        stage += f'<div class="why">{text(job.reason[:500])}</div>'
    return (
        f"<tr><td>{_swatch(look.colours[job.uid])}{text(job.label)}</td><td>{stage}</td>"
        f'<td>{text(job.plan or "none")}</td><td class="n">{steps}</td>'
        f'<td>{_costs(planned)}</td><td class="n">{retries}</td>'
        f'<td class="n">{seconds_text(job.waiting_ns)}</td>'
        f'<td class="n">{job.held_ns / 1e9:.1f} s</td></tr>'
    )


def _costs(planned: Sequence[Transition]) -> str:
    if not planned:
        return "none"
    items = [
        f"<li>{text(passage.before.plan)} → {text(passage.then.plan)}: {passage.price}</li>"
        for passage in planned[:_PASSAGES_MAX]
    ]
    costs = [passage.cost_ns for passage in planned if passage.cost_ns is not None]
    more = len(planned) - len(items)
    if more:
        items.append(f"<li>and {more} more</li>")
    total = f"{len(planned)}" + (f", {sum(costs) / 1e9:.1f} s together" if len(costs) > 1 else "")
    return f'{total}<ul class="costs">{"".join(items)}</ul>'


def _lines(history: History, look: Look) -> str:
    shown = history.lines[-_LINES_MAX:]
    missing = len(history.lines) - len(shown)
    note = f'<p class="note">{_count(missing, "earlier line")} left out.</p>' if missing else ""
    rows = "".join(_line(line, history, look) for line in shown)
    body = (
        '<div class="scroll"><table class="story"><thead><tr><th class="n">Time</th>'
        f"<th>What happened</th><th>Why</th></tr></thead><tbody>{rows}</tbody></table></div>"
        if shown
        else '<p class="note">Nothing yet.</p>'
    )
    return (
        "<section><h2>Decisions and events</h2>"
        '<p class="note">Decisions are in bold; the rest was reported to the control plane. '
        f"Times count from {text(utc_text(history.start_ns))}.</p>{note}{body}</section>"
    )


def _line(line: Line, history: History, look: Look) -> str:
    colour = look.colours.get(line.uid)
    mark = _swatch(colour) if colour is not None else '<i class="swatch none"></i>'
    what = f"{text(line.subject)} {text(line.what)}"
    if line.decided:
        what = f"<b>{what}</b>"
    since = line.at_ns - history.start_ns
    when = "before" if since < 0 else clock_text(since)
    return (
        f'<tr><td class="n" title="{text(utc_text(line.at_ns))}">{when}</td>'
        f"<td>{mark}{what}</td><td>{text(line.why[:1000])}</td></tr>"
    )


def _nodes(nodes: Iterable[NodeFact]) -> str:
    rows = []
    for node in sorted(nodes, key=lambda one: one.name):
        slots = ", ".join(
            f"{slot.id} ({slot.unhealthy})" if slot.unhealthy else slot.id
            for slot in node.accelerators
        )
        kinds = ", ".join(sorted({slot.type for slot in node.accelerators if slot.type}))
        state = node.contact + (", drained" if node.drained else "")
        rows.append(
            f"<tr><td>{text(node.name)}</td><td>{text(state)}</td><td>{text(kinds)}</td>"
            f"<td>{text(slots)}</td></tr>"
        )
    if not rows:
        return ""
    return (
        '<section><h2>Nodes</h2><div class="scroll"><table><thead><tr><th>Node</th><th>State</th>'
        f"<th>Type</th><th>Accelerators</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "</div></section>"
    )
