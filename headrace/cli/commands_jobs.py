"""Commands about jobs: names, options and help."""

from typing import Annotated

import typer

from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import Format
from headrace.cli.session import guarded, session_of

_PANEL = "Jobs"

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the job.")]
OwnNamespace = Annotated[
    str,
    typer.Option(
        "--namespace",
        "-n",
        help="Namespace of the job; left out, default, or the kubeconfig's where custom resources "
        "are written.",
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force-conflicts",
        help="Of custom resources, take over fields that others have set to something else.",
    ),
]
Output = Annotated[Format, typer.Option("--output", "-o", help="What to print.")]
JobName = Annotated[str, typer.Argument(help="Name of the job, or namespace/name.")]


@guarded
def apply(
    context: typer.Context,
    filename: Annotated[
        list[str],
        typer.Option("--filename", "-f", help="File, folder, or - for standard input; repeatable."),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, change nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the jobs are done, with a progress bar.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="Longest wait in seconds; 0 for no limit.", min=0)
    ] = 0,
    force_conflicts: Force = False,
    output: Output = Format.TABLE,
) -> None:
    """Submit jobs, or changes of jobs, from manifests; set the queues and the policy in them."""
    from headrace.cli import apply as work

    work.apply(
        session_of(context),
        tuple(filename),
        dry_run=dry_run,
        wait=wait,
        timeout_seconds=timeout,
        output=output,
        force=force_conflicts,
    )


@guarded
def get(
    context: typer.Context,
    kind: Annotated[
        str, typer.Argument(help="jobs, nodes, queues, observations, fits or switches.")
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Only these; models of observations, fits and switches."),
    ] = None,
    namespace: Namespace = "default",
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Jobs of every namespace.")
    ] = False,
    queue: Annotated[str, typer.Option("--queue", "-q", help="Only jobs of this queue.")] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with every change.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """List jobs, nodes, queues, or what was measured of each model.

    Observations are what plans take, as jobs told while they train or someone imported; fits are
    what was learnt of that; switches are what changes of plan or place cost.
    """
    from headrace.cli import get as work

    session, wanted = session_of(context), tuple(names or ())
    match work.kind_of(kind, work.LISTED):
        case "job":
            scope = work.Scope("" if everywhere else namespace, wanted, queue)
            if watch:
                work.watch_jobs(session, scope, output)
            else:
                work.get_jobs(session, scope, output)
        case _ if watch:
            raise CommandError(ExitCode.USAGE, "only jobs can be watched; try `headrace top`")
        case "observation":
            from headrace.cli.measured import get_observations

            get_observations(session, wanted, output)
        case "fit":
            from headrace.cli.fits import get_fits

            get_fits(session, wanted, output)
        case "switch":
            from headrace.cli.measured import get_switches

            get_switches(session, wanted, output)
        case other:
            work.get_others(session, other, wanted, output)


@guarded
def describe(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="job, node, queue or fit.")],
    name: Annotated[str, typer.Argument(help="Its name; of fits, the model's.")],
    namespace: Namespace = "default",
    output: Output = Format.TABLE,
) -> None:
    """Tell everything about one job, node or queue, or about the fits of one model."""
    from headrace.cli import describe as work

    work.describe(session_of(context), kind, name, namespace, output)


@guarded
def delete(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Jobs to withdraw.")] = None,
    filename: Annotated[
        list[str] | None,
        typer.Option(
            "--filename",
            "-f",
            help="What this file, folder, or - for standard input describes; repeatable.",
        ),
    ] = None,
    namespace: OwnNamespace = "",
    purge: Annotated[bool, typer.Option("--purge", help="Remove its checkpoints too.")] = False,
    orphan: Annotated[
        list[str] | None,
        typer.Option(
            "--orphan",
            metavar="UID",
            help="End what still runs of a job that the control plane does not know.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the jobs are gone.")] = False,
    timeout: Annotated[
        float, typer.Option(help="Longest wait in seconds; 0 for no limit.", min=0)
    ] = 0,
) -> None:
    """Withdraw jobs, and delete queues by manifest. Checkpoints stay unless --purge is given."""
    from headrace.cli import delete as work

    work.delete(
        session_of(context),
        tuple(names or ()),
        namespace,
        files=tuple(filename or ()),
        orphans=tuple(orphan or ()),
        purge=purge,
        wait=wait,
        timeout_seconds=timeout,
    )


@guarded
def suspend(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(help="Jobs that shall not run now.")],
    namespace: OwnNamespace = "",
    force_conflicts: Force = False,
) -> None:
    """Suspend jobs: what runs is checkpointed and releases everything."""
    from headrace.cli import suspend as work

    work.set_suspended(
        session_of(context), tuple(names), namespace, suspended=True, force=force_conflicts
    )


@guarded
def resume(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(help="Jobs that may run again.")],
    namespace: OwnNamespace = "",
    force_conflicts: Force = False,
) -> None:
    """Let suspended jobs go on, from their checkpoints."""
    from headrace.cli import suspend as work

    work.set_suspended(
        session_of(context), tuple(names), namespace, suspended=False, force=force_conflicts
    )


@guarded
def logs(
    context: typer.Context,
    name: JobName,
    namespace: Namespace = "default",
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on as it grows, over restarts and new attempts."),
    ] = False,
    rank: Annotated[int, typer.Option("--rank", "-r", help="Rank whose output it is.", min=0)] = 0,
    attempt: Annotated[
        int, typer.Option("--attempt", "-a", help="Attempt; 0 for the newest.", min=0)
    ] = 0,
    tail: Annotated[
        int, typer.Option(help="Last lines to begin with; -1 for all that was kept.", min=-1)
    ] = -1,
) -> None:
    """Show the output of a job's rank."""
    from headrace.cli import logs as work

    work.logs(session_of(context), name, namespace, work.Wanted(rank, attempt, tail, follow))


@guarded
def events(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Only this job's.")] = "",
    namespace: Namespace = "default",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with new ones.")] = False,
    after: Annotated[int, typer.Option(help="Only after this sequence number.", min=0)] = 0,
    progress: Annotated[
        bool, typer.Option("--progress", help="The steps that jobs made too.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Tell what happened and was decided, oldest first."""
    from headrace.cli import events as work

    wanted = work.Wanted(after, progress, watch)
    work.events(session_of(context), name, namespace, wanted, output)


@guarded
def explain(
    context: typer.Context,
    name: JobName,
    namespace: Namespace = "default",
    output: Output = Format.TABLE,
) -> None:
    """Say why a job runs as it runs, or waits: what it lacks and who holds it."""
    from headrace.cli import explain as work

    work.explain(session_of(context), name, namespace, output)


@guarded
def top(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two pictures.", min=0.2)] = 1.0,
) -> None:
    """Watch jobs, plans, accelerators, losses and decisions in one live screen."""
    from headrace.cli import top as work

    work.top(session_of(context), once=once, interval_seconds=interval)


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    for command in (apply, get, describe, suspend, resume, delete, logs, events, explain, top):
        app.command(rich_help_panel=_PANEL)(command)
