"""The answer to ``headrace what-if``, for people: a table of what changes, and sentences."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from headrace.api.counted import counted
from headrace.cli.output import say, table, width
from headrace.cli.tables import Column

_ROWS = 20
"""So many jobs are shown; ``-o wide`` shows all."""

_UNITS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))

_COLUMNS = (
    Column("JOB", gives_way=1),
    Column("START"),
    Column("END"),
    Column("CHANGE", right=True),
)
_COLUMNS_OF_ONE = (
    Column("JOB", gives_way=1),
    Column("START"),
    Column("END"),
    Column("ON", right=True),
    Column("PLAN", gives_way=2),
)

Answer = dict[str, Any]


def show_answer(answer: Answer, *, wide: bool) -> None:
    """Prints the answer, in at most as many columns as the terminal has unless ``wide``."""
    columns = 10_000 if wide else width()
    for line in _lines_before(answer):
        _tell(line, columns)
    say()
    if answer["changes"]:
        _show_differences(answer, wide=wide, columns=columns)
    else:
        _show_one(answer, wide=wide)
    for each in answer["submitted"]:
        say()
        for line in _submitted(each):
            _tell(line, columns)
    say()
    say("Assumed:")
    for clause in answer["assumed"]:
        _tell(f"- {clause}", columns)
    for sentence in answer["trouble"]:
        _tell(f"REFUSED {sentence}", columns)


def _tell(line: str, columns: int) -> None:
    indent = len(line) - len(line.lstrip())
    for part in textwrap.wrap(
        line, columns, subsequent_indent=" " * (indent + 2), break_on_hyphens=False
    ):
        say(part)


def _lines_before(answer: Answer) -> Iterator[str]:
    policy = answer["policy"]
    decides = policy["before"]
    if policy["after"] != decides:
        decides = f"{decides} -> {policy['after']}"
    moment = answer["at"].replace("T", " ").replace("+00:00", " UTC")
    yield f"From {moment} on, under policy {decides}:"
    for clause in answer["changes"]:
        yield f"What if {clause}?"


# -- with a change ----------------------------------------------------------------------------


def _show_differences(answer: Answer, *, wide: bool, columns: int) -> None:
    changing = [each for each in answer["jobs"] if each["effect"] != "same"]
    shown = answer["jobs"] if wide else changing[:_ROWS]
    if shown:
        table(_COLUMNS, [_row(each) for each in shown], wide=wide)
    same = sum(each["effect"] == "same" for each in answer["jobs"])
    if not wide:
        if len(changing) > len(shown):
            say(f"{len(changing) - len(shown)} more change; -o wide shows all")
        if same:
            say(f"{counted(same, 'job')} {'does' if same == 1 else 'do'} not change")
    if not answer["jobs"]:
        say("No job is there that has not ended.")
    else:
        say()
        for line in _sums(answer["sums"]):
            _tell(line, columns)
    for each in shown:
        for line in _why_not(each):
            _tell(line, columns)


def _row(each: Answer) -> list[str]:
    before, after = each["before"], each["after"]
    return [
        each["job"],
        _pair(_start(before), _start(after)),
        _pair(_end(before), _end(after)),
        _change(each["change_seconds"]),
    ]


def _pair(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"


def _start(job: Answer) -> str:
    return "never" if job["start_seconds"] is None else span(job["start_seconds"])


def _end(job: Answer) -> str:
    if job["outcome"] == "Endless":
        return "unknown"
    if job["end_seconds"] is None:
        return "never"
    ends = span(job["end_seconds"])
    return f"fails {ends}" if job["outcome"] == "Failed" else ends


def _change(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if abs(seconds) < 1:
        return "0"
    return f"{'+' if seconds > 0 else '-'}{span(abs(seconds))}"


def _why_not(each: Answer) -> Iterator[str]:
    """Why a job does not end well in one of the two cases."""
    for case, words in (("before", "without the change"), ("after", "with the change")):
        job = each[case]
        if job["reason"] and each["before"]["outcome"] != each["after"]["outcome"]:
            what = "fails" if job["outcome"] == "Failed" else "does not end"
            yield f"{each['job']} {what} {words}: {job['reason']}"


def _sums(sums: Answer) -> Iterator[str]:
    yield _affected("Gain", sums["gain"])
    yield _affected("Hurt", sums["hurt"])
    before, after = sums["before"], sums["after"]
    if not before["jobs"]:
        yield "No job succeeds in both cases."
        return
    one, other = before["average_completion_seconds"], after["average_completion_seconds"]
    share = f" ({other / one - 1:+.1%})" if one and span(one) != span(other) else ""
    yield (
        f"Of what succeeds in both cases ({counted(before['jobs'], 'job')}), the average "
        f"completion is {_arrow(span(one), span(other))}{share}, it holds "
        f"{_arrow(_hours(before), _hours(after))} accelerator hours from now on, and the last "
        f"job ends in {_arrow(_last(before), _last(after))}."
    )


def _affected(who: str, affected: Answer) -> str:
    if not affected["jobs"]:
        return f"{who}: nobody."
    told = f"{who}: {counted(affected['jobs'], 'job')}"
    if affected["most"]:
        most = ", ".join(f"{each['job']} {span(each['seconds'])}" for each in affected["most"])
        told += f", {span(affected['seconds'])} in all, most of all {most}"
    others = affected["without_end_in_one_case"]
    if others:
        told += f"; in one case only ends {', '.join(others[:3])}"
        told += f" (and {len(others) - 3} more)" * (len(others) > 3)
    return f"{told}."


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"


def _hours(total: Answer) -> str:
    return f"{total['accelerator_hours']:.1f}"


def _last(total: Answer) -> str:
    return span(total["last_end_seconds"] or 0.0)


# -- jobs that are submitted ------------------------------------------------------------------


def _submitted(job: Answer) -> Iterator[str]:
    if job["start_seconds"] is None:
        yield f"{job['job']} would never start: {job['reason'] or 'the policy gives no reason'}"
        return
    starts = "at once" if job["start_seconds"] < 1 else f"in {span(job['start_seconds'])}"
    match job["outcome"]:
        case "Endless":
            ends = "run until it ends by itself, which nobody knows"
        case "Waits":
            ends = f"not end: {job['reason']}"
        case "Failed":
            ends = f"fail in {span(job['end_seconds'])}: {job['reason']}"
        case _:
            ends = f"end in {span(job['end_seconds'])}"
    yield f"{job['job']} would start {starts} and {ends}:"
    for each in job["held"]:
        nodes = each["nodes"]
        named = ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
        begins = (
            "from now on" if each["start_seconds"] < 1 else f"from {span(each['start_seconds'])} on"
        )
        count = each["accelerators"]
        yield f"  {begins} {count} accelerator{'s' * (count != 1)} under {each['plan']} ({named})"


# -- without a change -------------------------------------------------------------------------


def _show_one(answer: Answer, *, wide: bool) -> None:
    jobs = [each["before"] for each in answer["jobs"]]
    if not jobs:
        say("No job is there that has not ended.")
        return
    shown = jobs if wide else jobs[:_ROWS]
    rows = []
    for job in shown:
        last: Sequence[Answer] = job["held"][-1:]
        count = str(last[0]["accelerators"]) if last else ""
        rows.append([job["job"], _start(job), _end(job), count, last[0]["plan"] if last else ""])
    table(_COLUMNS_OF_ONE, rows, wide=wide)
    if len(jobs) > len(shown):
        say(f"{len(jobs) - len(shown)} more; -o wide shows all")
    say()
    for job in shown:
        if job["reason"]:
            _tell(f"{job['job']} {job['outcome'].lower()}: {job['reason']}", width())
    total = answer["sums"]["before"]
    if total["jobs"]:
        average = span(total["average_completion_seconds"])
        say(f"Average completion {average}, {_hours(total)} accelerator hours from now on.")


def span(seconds: float) -> str:
    """A span of time in two units, exact enough to be compared: ``2h05m``; ``now`` for none."""
    whole = round(seconds)
    if whole < 1:
        return "now" if seconds < 1 else "1s"
    # What is rounded up to a full unit is told in that one.
    for size, unit, smaller, its_unit in _UNITS:
        rounded = round(whole / smaller) * smaller
        if rounded >= size:
            first, rest = divmod(rounded, size)
            return f"{first}{unit}{rest // smaller:02d}{its_unit}"
    return f"{whole}s"
