"""``headrace demo``: a cluster on this machine, two jobs that share it, and the report about it.

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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.api.plain_text import plain
from headrace.cli.demo_checks import Check, Expected, checked
from headrace.cli.demo_story import ENOUGH_STEPS, DemoFailedError, Scene, Story, held
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.interrupts import deaf, interruptible
from headrace.cli.output import Format, has_colour, is_terminal, note, say, show, typed, width
from headrace.cli.report import write_report
from headrace.cli.report_fold import history_of
from headrace.cli.report_model import History
from headrace.cli.session import Session

if TYPE_CHECKING:
    from headrace.cli.local_cluster import Wish
    from headrace.cli.report_facts import ReportFacts
    from headrace.cli.top import Facts
    from headrace.client.client import Client

_ENDING_SECONDS = 20.0
"""Kept of the time limit for the report and for ending everything."""

_ACCELERATED_SCALE = 10
"""On real GPUs the steps are so much shorter that there must be more of them."""

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
        examples: Folder with ``gpt.yaml`` and ``vit.yaml``; the repository's own if None.
        scale: Factor for the jobs' steps; 0 chooses by what accelerators there are.
    """

    keep: bool = False
    limit_seconds: float = 240.0
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
        if (place / "gpt.yaml").is_file() and (place / "vit.yaml").is_file():
            return place
    tried = ", ".join(str(place) for place in places)
    raise CommandError(
        ExitCode.USAGE,
        f"no gpt.yaml and vit.yaml in {tried}: run this in Headrace's repository, or name the "
        "folder with --examples",
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
        note("one GPU cannot be shared by two jobs, so the demo takes CPU slots")
    return Wish(nodes=2, slots=2, gpus=found if len(found) >= 2 else ())


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
    scale = options.scale or (
        1 if all(slot.type == "cpu" for slot in slots) else _ACCELERATED_SCALE
    )
    kinds = ", ".join(sorted({slot.type for slot in slots}))
    tell(f"the cluster has {len(slots)} accelerators ({kinds}) on {len(client.nodes())} nodes")

    # Its checks say how many accelerators each job holds, so those are shared out evenly here; by
    # itself a cluster gives them to whom they serve most.
    client.set_policy({"policy": "equal-share"})

    def submit(name: str) -> str:
        return _submitted(client, session, examples / f"{name}.yaml", scale)

    story = Story(
        elastic=submit("gpt"),
        accelerators=len(slots),
        submit_guest=lambda: submit("vit"),
        say=tell,
        late_at=began + options.limit_seconds - 3 * _ENDING_SECONDS,
        over_at=began + options.limit_seconds - _ENDING_SECONDS,
    )
    trouble = ""
    try:
        _show(client, story)
    except DemoFailedError as failure:
        trouble = str(failure)
    report = options.report.absolute()
    facts = write_report(client, report)
    history = history_of(facts)
    checks = checked(history, dict(facts.losses), _expected(story, facts, _plans(client, story)))
    _summary(history, facts, checks)
    say(f"report: {report}")
    return trouble, checks


def _submitted(client: Client, session: Session, manifest: Path, scale: int) -> str:
    """Applies an example with ``scale`` times its steps, as ``headrace apply -f`` does."""
    from headrace.cli.apply import apply

    if scale != 1:
        manifest = _scaled(manifest, session.home / "manifests", scale)
    apply(
        session,
        (str(manifest),),
        dry_run=False,
        wait=False,
        timeout_seconds=0,
        output=Format.TABLE,
    )
    return client.get_job("default", manifest.stem).uid


def _scaled(manifest: Path, folder: Path, scale: int) -> Path:
    import yaml

    document: dict[str, Any] = yaml.safe_load(manifest.read_text(encoding="utf-8"))
    training = document["spec"]["training"]
    for name in ("steps", "warmupSteps"):
        if name in training:
            training[name] *= scale
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / manifest.name
    written.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return written


def _show(client: Client, story: Story) -> None:
    """Follows the story on a live screen, or in lines where nobody watches."""
    from headrace.cli.top import Watcher, live

    if is_terminal(sys.stdout):
        live(
            client,
            interval_seconds=_LOOK_SECONDS,
            until=lambda facts: story.look(facts.jobs, facts.now),
        )
        return
    watcher, tick, lines = Watcher(client), threading.Event(), PlainLines()
    while True:
        facts = watcher.facts()
        for line in lines.new(facts):
            tell(line, hang=_CLOCK_WIDTH)
        if story.look(facts.jobs, facts.now):
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
                f"loss {job.status.progress.loss:.3f}"
                for job in facts.jobs
                if job.status.stage == "Running" and job.status.progress.HasField("loss")
            ]
        return [f"{facts.now - self._began:5.0f} s  {line}" for line in lines]


def _state_line(job: Any) -> str:
    count, status = held(job), job.status
    if not count:
        return f"{job.name} is {status.stage}"
    on_its_way = f", on its way to {status.plan_asked_for}" if status.plan_asked_for else ""
    return f"{job.name} is {status.stage} {status.plan} on {count} accelerators{on_its_way}"


def _plans(client: Client, story: Story) -> tuple[str, ...]:
    """The plans that the first job's manifest names."""
    known = {job.uid: job for job in client.list_jobs()}
    if story.elastic not in known:
        return ()
    return tuple(json.loads(known[story.elastic].manifest_json)["spec"].get("plans", ()))


def _expected(story: Story, facts: ReportFacts, plans: tuple[str, ...]) -> Expected:
    """What must have been done: all steps of a finished job, enough of one that was cut short."""
    total = {job.uid: job.steps_total for job in facts.jobs}
    done = {job.uid: job.step for job in facts.jobs}
    finished = {job.uid for job in facts.jobs if job.stage == "Succeeded"}
    elastic, cut_short = story.elastic, story.scene is Scene.OVER and story.elastic not in finished
    return Expected(
        elastic=elastic,
        guest=story.guest,
        accelerators=story.accelerators,
        elastic_steps=done.get(elastic, ENOUGH_STEPS) if cut_short else total.get(elastic, 1),
        guest_steps=total.get(story.guest, 1),
        plans=plans,
    )


def _summary(history: History, facts: ReportFacts, checks: list[Check]) -> None:
    colour = has_colour(sys.stdout)
    say()
    for job in history.jobs:
        losses = sorted(facts.losses.get(job.uid, ()), key=lambda point: point.step)
        tell(
            f"{job.label}: {job.stage}, {job.step} of {job.steps_total} steps"
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
    for check in checks:
        for line in verdict(check, columns=width(), colour=colour):
            show(line)
    say()


def verdict(check: Check, *, columns: int, colour: bool) -> list[str]:
    """A check in lines that fit: whether it holds, what it claims, and what was found."""
    word, code = ("ok", "32") if check.holds else ("FAILED", "1;31")
    margin = len("FAILED ")
    told = _wrapped(f"{check.claim} ({check.found})", columns - margin)
    shown = f"\x1b[{code}m{word}\x1b[0m" if colour else word
    begin = shown + " " * (margin - len(word))
    return [begin + told[0], *(" " * margin + line for line in told[1:])]


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
            "apply -f examples/": "both jobs again",
            "top": "watch them",
        }
    for step, meaning in {**steps, "down": "end it and nothing else"}.items():
        say(f"  {name} {step:<20}  # {meaning}")
