"""``headrace demo``: a cluster on this machine, three jobs that share it, and the report about it.

What happens when is `demo_story`'s; whether it went right is `demo_checks`'s. Here is the rest:
starting, asking, showing, writing, and ending everything again.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import shutil
import sys
import tempfile
import textwrap
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from headrace.api.counted import counted
from headrace.api.plain_text import plain
from headrace.api.plan import ExecutionPlan
from headrace.cli.demo_checks import Check, Expected, checked
from headrace.cli.demo_forecasts import COLUMNS, how_they_did, introduction
from headrace.cli.demo_story import DemoFailedError, Story, held
from headrace.cli.estimates import eta
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.interrupts import deaf, interruptible
from headrace.cli.output import (
    Format,
    has_colour,
    is_terminal,
    note,
    say,
    show,
    table,
    typed,
    width,
)
from headrace.cli.report import write_report
from headrace.cli.report_fold import history_of
from headrace.cli.report_model import History
from headrace.cli.session import Session
from headrace.cli.tables import Column

if TYPE_CHECKING:
    from headrace.api.generated import admin_pb2
    from headrace.cli.local_cluster import Wish
    from headrace.cli.report_facts import ReportFacts
    from headrace.cli.top import Facts
    from headrace.client.client import Client

POLICY = "rubick"

NAMES = ("gpt", "llama", "vit")
"""The jobs, in the order in which they come."""

KNOBS: Mapping[str, float] = MappingProxyType(
    {"rubick.cool_down_seconds": 5.0, "rubick.switch_seconds": 3.0}
)
"""What is turned for jobs that last a minute and not days."""

_ENDING_SECONDS = 20.0
"""Kept of the time limit for the report and for ending everything."""

_ACCELERATED_SCALE = 10
"""On real GPUs the steps are so much shorter that there must be more of them."""

_REFUSED_METRICS = ("headrace_policy_refused_total{", "headrace_policy_refused_targets_total{")
"""Decisions that broke a rule as a whole, and jobs about which alone one did."""

_LOOK_SECONDS = 1.0
_PROGRESS_LINE_SECONDS = 10.0
_CLOCK_WIDTH = len("    0 s  ")


@dataclass(frozen=True, slots=True)
class Options:
    """What the person asked for.

    Attributes:
        keep: Leave the cluster running.
        limit_seconds: Longest time for everything.
        report: Where the report goes.
        home: Folder of the demo's cluster; a new one under the temporary folder if None.
        examples: Folder with ``gpt.yaml``, ``llama.yaml`` and ``vit.yaml``; the repository's own if
            None.
        scale: Factor for the jobs' steps; 0 chooses by what accelerators there are.
    """

    keep: bool = False
    limit_seconds: float = 1200.0
    report: Path = Path("headrace-report.html")
    home: Path | None = None
    examples: Path | None = None
    scale: int = 0


def demo(options: Options) -> None:
    """Runs the demo.

    Raises:
        CommandError: Something of it was not as it should be; the sentence says what.
    """
    began = time.time()
    examples = _examples(options.examples)
    home = _home(options.home)
    with interruptible():
        try:
            with _cluster(home, keep=options.keep) as session, session.client() as client:
                trouble, checks = _played(client, session, examples, options, began)
        except BaseException:
            note(f"the logs are in {home}")
            raise
    broken = sum(not check.holds for check in checks)
    if options.home is None and not (options.keep or trouble or broken):
        shutil.rmtree(home, ignore_errors=True)
    _last_words(options, home, time.time() - began)
    if trouble or broken:
        what = trouble or f"{broken} of {len(checks)} checks FAILED"
        raise CommandError(ExitCode.FAILED, f"{what}. The logs are in {home}")


def _examples(chosen: Path | None) -> Path:
    import headrace

    places = (
        [chosen] if chosen else [Path("examples"), Path(headrace.__path__[0]).parent / "examples"]
    )
    for place in places:
        if all((place / f"{name}.yaml").is_file() for name in NAMES):
            return place
    tried = ", ".join(str(place) for place in places)
    *others, last = (f"{name}.yaml" for name in NAMES)
    raise CommandError(
        ExitCode.USAGE,
        f"no {', '.join(others)} and {last} in {tried}: run this in Headrace's repository, or name "
        "the folder with --examples",
    )


@contextlib.contextmanager
def _cluster(home: Path, *, keep: bool) -> Iterator[Session]:
    """A local cluster of two nodes with two accelerators each; ended again unless kept."""
    from headrace.cli.local_cluster import ray_token_file, read_record
    from headrace.cli.up import up

    # What `up` says on its own is what to type next, and here comes the demo next.
    with contextlib.redirect_stdout(io.StringIO()):
        up(home, _wish(), foreground=False)
    try:
        record = read_record(home)
        endpoints = record.endpoints if record else {}
        if "dashboard" in endpoints:
            say(f"Ray's dashboard: {endpoints['dashboard']}")
            say(f"  it asks for a token: cat {shlex.quote(str(ray_token_file(home)))}")
        yield Session(home=home, flags={"server": endpoints.get("grpc", "")})
    except BaseException:
        _end(home)
        raise
    if not keep:
        _end(home)


def _wish() -> Wish:
    """Two nodes: of real GPUs if there are two or more to share, else of CPU slots."""
    from headrace.cli.local_cluster import Wish
    from headrace.cli.up import gpus

    found = gpus()
    if len(found) == 1:
        note("one GPU cannot be shared by several jobs, so the demo takes CPU slots")
    return Wish(
        nodes=2, slots=2, gpus=found[: 4 if len(found) >= 4 else 2] if len(found) > 1 else ()
    )


def _end(home: Path) -> None:
    """Ends the cluster; a second Ctrl-C must not leave half of it behind.

    Raises:
        CommandError: Something survived.
    """
    from headrace.cli.up import down

    note("ending the cluster ...")
    with deaf():
        down(home)


def _home(chosen: Path | None) -> Path:
    """The folder for the demo's cluster: a new one, or a chosen one that holds no cluster yet.

    Raises:
        CommandError: A cluster has lived there.
    """
    if chosen is None:
        return Path(tempfile.mkdtemp(prefix="headrace-demo-"))
    home = chosen.expanduser().absolute()
    if home.exists() and any(home.iterdir()):
        raise CommandError(
            ExitCode.REFUSED,
            f"wanted an empty or new folder for the demo's cluster, but there is something in "
            f"{home}; leave --home out for a temporary one",
        )
    return home


def _played(
    client: Client, session: Session, examples: Path, options: Options, began: float
) -> tuple[str, list[Check]]:
    """Plays the story, writes the report, judges.

    Returns:
        What went wrong, or nothing; and the checks.
    """
    slots = [slot for status in client.nodes() for slot in status.node.accelerators]
    if len(slots) < 2:
        return f"the demo needs 2 accelerators to share, the cluster has {len(slots)}", []
    on_cpus = all(slot.type == "cpu" for slot in slots)
    scale = options.scale or (1 if on_cpus else _ACCELERATED_SCALE)
    kinds = ", ".join(sorted({slot.type for slot in slots}))
    tell(
        f"the cluster has {counted(len(slots), 'accelerator')} ({kinds}) on {len(client.nodes())} "
        "nodes"
    )
    _turn_knobs(client)

    def submit(name: str) -> str:
        manifest = fitted(examples / f"{name}.yaml", len(slots), scale)
        return _submitted(client, session, manifest)

    story = Story(
        elastic=submit("gpt"),
        submit_promised=lambda: submit("llama"),
        submit_guest=lambda: submit("vit"),
        explain=lambda uid: _explain(client, uid),
        say=_narrate,
        over_at=began + options.limit_seconds - _ENDING_SECONDS,
    )
    trouble = ""
    try:
        _show(client, story)
    except DemoFailedError as failure:
        trouble = str(failure)
    report = options.report.absolute()
    facts, learnt, outcomes = (
        write_report(client, report),
        client.fits(),
        client.forecast_outcomes(),
    )
    history = history_of(facts)
    checks = checked(
        history,
        dict(facts.losses),
        learnt,
        Expected(
            elastic=story.elastic,
            promised=story.promised,
            guest=story.guest,
            asked_for=len(slots) // 2,
            # GPUs are so fast that the first job may not need all of them: then it makes no room.
            changes_kind=on_cpus,
            policy=client.cluster().policy,
            refused=_refused(session),
        ),
    )
    _summary(history, facts, learnt, outcomes, checks)
    say(f"report: {report}")
    return trouble, checks


def _turn_knobs(client: Client) -> None:
    usual = client.policy().settings
    client.set_policy({"policy": POLICY, **KNOBS})
    cool_down, switch = (
        f"{value:g} s (else {json.loads(usual[name]):g} s)" for name, value in KNOBS.items()
    )
    tell(
        f"the policy {POLICY} chooses plans and accelerators; for jobs that last a minute and not "
        f"days, a job is left in peace for {cool_down} after a change, and a change is taken to "
        f"cost {switch} until one was measured"
    )


def _refused(session: Session) -> int | None:
    """Decisions that broke a rule and were not carried out, whole or about a job; None if nobody
    can be asked.
    """
    from headrace.cli.local_cluster import read_record

    record = read_record(session.home)
    address = record.endpoints.get("metrics") if record else None
    if not address:
        return None
    try:
        with urllib.request.urlopen(address, timeout=10.0) as answer:  # noqa: S310 - our own
            return refusals_in(answer.read().decode())
    except OSError as error:
        note(f"the metrics at {address} cannot be read: {error}")
        return None


def refusals_in(metrics: str) -> int:
    """Decisions that were not carried out, whole or about a job, by Prometheus's text format."""
    lines = (line for line in metrics.splitlines() if line.startswith(_REFUSED_METRICS))
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in lines))


def _submitted(client: Client, session: Session, document: dict[str, Any]) -> str:
    """Applies a manifest as ``headrace apply -f`` does; the job's uid."""
    import yaml

    from headrace.cli.apply import apply

    folder, name = session.home / "manifests", str(document["metadata"]["name"])
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / f"{name}.yaml"
    manifest.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    apply(
        session,
        (str(manifest),),
        dry_run=False,
        wait=False,
        timeout_seconds=0,
        output=Format.TABLE,
    )
    return client.get_job("default", name).uid


def fitted(example: Path, accelerators: int, scale: int = 1) -> dict[str, Any]:
    """An example for a cluster of so many accelerators: those that are to share it ask for at least
    half of it, who is guaranteed for exactly half; and each does ``scale`` times its steps.
    """
    import yaml

    document: dict[str, Any] = yaml.safe_load(example.read_text(encoding="utf-8"))
    spec, half = document["spec"], accelerators // 2
    for name in ("steps", "warmupSteps"):
        if name in spec["training"]:
            spec["training"][name] *= scale
    sizes = spec["accelerators"]
    if spec.get("serviceClass") == "Guaranteed":
        sizes["minimum"] = sizes["maximum"] = half
    elif sizes["maximum"] > half:
        sizes["minimum"], sizes["maximum"] = half, accelerators
    if "plans" in spec:
        ranks = {plan: ExecutionPlan.parse(plan).ranks for plan in spec["plans"]}
        spec["plans"] = [p for p, n in ranks.items() if sizes["minimum"] <= n <= sizes["maximum"]]
    return document


def _explain(client: Client, uid: str) -> None:
    """What ``headrace explain`` says of a job now."""
    from headrace.cli.explain import sentences

    job = client.get_job_by_uid(uid)
    say(f"  $ {typed()} explain {job.name}")
    for line in sentences(job, client.explain(uid), columns=width() - 2):
        say(f"  {line}")


def _show(client: Client, story: Story) -> None:
    """Follows the story on a live screen, or in lines where nobody watches."""
    from headrace.cli.top import Watcher, live

    if is_terminal(sys.stdout):
        live(
            client,
            interval_seconds=_LOOK_SECONDS,
            until=lambda facts: story.look(facts.jobs, _learnt(client), facts.now),
        )
        return
    watcher, tick, lines = Watcher(client), threading.Event(), PlainLines()
    while True:
        facts = watcher.facts()
        for line in lines.new(facts):
            tell(line, hang=_CLOCK_WIDTH)
        if story.look(facts.jobs, _learnt(client), facts.now):
            return
        tick.wait(_LOOK_SECONDS)


class PlainLines:
    """What a log shows in place of a live screen: changes at once, progress now and then."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._told: set[int] = set()
        self._progress_at = 0.0
        self._began = 0.0

    def new(self, facts: Facts) -> list[str]:
        """Lines that were not there before."""
        self._began = self._began or facts.now
        lines = []
        for event in facts.decisions:
            if event.sequence not in self._told:
                self._told.add(event.sequence)
                about = event.job_name or event.node
                told = event.message or event.reason.message
                # A decision names its jobs itself.
                lines.append(told if told.startswith("decided") else f"{about}: {told}")
        for job in facts.jobs:
            state = _state_line(job)
            if self._states.get(job.uid) != state:
                self._states[job.uid] = state
                lines.append(state)
        if facts.now - self._progress_at >= _PROGRESS_LINE_SECONDS:
            self._progress_at = facts.now
            lines += [
                f"{job.name} step {job.status.progress.step} of {job.status.progress.steps_total}, "
                f"loss {job.status.progress.loss:.3f}{_done(job, facts.now)}"
                for job in facts.jobs
                if job.status.stage == "Running" and job.status.progress.HasField("loss")
            ]
        return [f"{facts.now - self._began:5.0f} s  {line}" for line in lines]


def _done(job: Any, now: float) -> str:
    when = eta(job, now)
    return "" if when == "-" else f", done {when}"


def _state_line(job: Any) -> str:
    count, status = held(job), job.status
    if not count:
        return f"{job.name} is {status.stage}"
    on_its_way = f", on its way to {status.plan_asked_for}" if status.plan_asked_for else ""
    return (
        f"{job.name} is {status.stage} {status.plan} on {counted(count, 'accelerator')}{on_its_way}"
    )


def _learnt(client: Client) -> frozenset[str]:
    """Jobs of whose type of model there is a fit: nobody else trains one, so it knows their steps,
    if not yet what they told last.
    """
    return frozenset(row.uid for fit in client.fits() for row in fit.compared)


def _summary(
    history: History,
    facts: ReportFacts,
    learnt: list[admin_pb2.Fit],
    outcomes: list[admin_pb2.ForecastOutcome],
    checks: list[Check],
) -> None:
    colour = has_colour(sys.stdout)
    say()
    for job in history.jobs:
        losses = sorted(facts.losses.get(job.uid, ()), key=lambda point: point.step)
        tell(
            f"{job.label}: {job.stage}, {job.step} of {counted(job.steps_total, 'step')}"
            + (f", loss {losses[0].loss:.3f} -> {losses[-1].loss:.3f}" if losses else "")
            + f", {job.held_ns / 1e9:.0f} accelerator-seconds",
            hang=4,
        )
        for passage in history.of_job(job.uid):
            kind = "reconfigured" if passage.planned else "retried"
            plans = f"{passage.before.plan} -> {passage.then.plan}"
            why = f": {passage.why}" if passage.why else ""
            tell(f"  {kind} {plans} {passage.price}{why}", hang=4)
    say()
    _tell_what_was_learnt(learnt)
    say()
    _tell_how_forecasts_did(history, outcomes)
    say()
    for check in checks:
        for line in verdict(check, columns=width(), colour=colour):
            show(line)
    say()


def _tell_how_forecasts_did(history: History, outcomes: list[admin_pb2.ForecastOutcome]) -> None:
    """What was said of ends beside what came true."""
    rows = how_they_did(outcomes, {job.uid: job.label for job in history.jobs})
    if not rows:
        say("nothing was told of ends that came true")
        return
    tell(introduction(outcomes))
    table(COLUMNS, rows)


def _tell_what_was_learnt(learnt: list[admin_pb2.Fit]) -> None:
    """Prediction beside measurement."""
    from headrace.cli.fits import COMPARED_COLUMNS, compared, model_of

    rows = [[model_of(fit), *cells] for fit in learnt for _, cells in compared(fit)]
    if not rows:
        say("nothing was learnt of what steps take")
        return
    tell(
        f"what was learnt of {len(learnt)} models on the spot (`{typed()} describe fit MODEL`): "
        "milliseconds of a step, GUESSED by the model's sizes before anything was measured, as "
        "MEASURED last while the jobs trained, and FITTED to that, BETWEEN being the interval"
    )
    table((Column("MODEL", gives_way=3), *COMPARED_COLUMNS), rows)


def verdict(check: Check, *, columns: int, colour: bool) -> list[str]:
    """A check in lines that fit: whether it holds, what it claims, and what was found."""
    word, code = ("ok", "32") if check.holds else ("FAILED", "1;31")
    margin = len("FAILED ")
    told = _wrapped(f"{check.claim} ({check.found})", columns - margin)
    shown = f"\x1b[{code}m{word}\x1b[0m" if colour else word
    begin = shown + " " * (margin - len(word))
    return [begin + told[0], *(" " * margin + line for line in told[1:])]


def _narrate(text: str) -> None:
    """A sentence of the story, which stands out from what the cluster says."""
    say()
    tell(f"--> {text}", hang=4)


def tell(text: str, *, hang: int = 0) -> None:
    """A sentence in as many lines as it takes; all but the first begin ``hang`` columns in."""
    for line in _wrapped(text, width(), hang):
        say(line)


def _wrapped(text: str, columns: int, hang: int = 0) -> list[str]:
    """Paths and names stay whole, so that they can be copied."""
    return textwrap.wrap(
        plain(text),
        columns,
        subsequent_indent=" " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _last_words(options: Options, home: Path, seconds: float) -> None:
    say(f"the demo took {seconds:.0f} s")
    say("what to type next:")
    name = typed()
    if options.keep:
        say("  # the demo's cluster is still running")
        say(f"  export HEADRACE_HOME={shlex.quote(str(home))}")
        steps = {"top": "watch it", "describe job gpt": "tell all about one job"}
    else:
        steps = {
            "up": "a cluster like this one that stays",
            "apply -f examples/": "the three jobs again",
            "top": "watch them",
        }
    for step, meaning in {**steps, "down": "end it and nothing else"}.items():
        say(f"  {name} {step:<20}  # {meaning}")
