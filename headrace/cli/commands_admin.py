"""Commands for those who run a cluster: names, options and help."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.commands_jobs import Force
from headrace.cli.output import Format
from headrace.cli.session import guarded, session_of

_PANEL = "Administration"

Output = Annotated[Format, typer.Option("--output", "-o", help="What to print.")]
NodeName = Annotated[str, typer.Argument(help="Name of the node.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Change nothing; tell what the next decision would do differently.",
    ),
]
QueueName = Annotated[str, typer.Argument(help="Name of the queue.")]

queue = typer.Typer(help="List, set and delete queues.", no_args_is_help=True)
fit = typer.Typer(help="List what was learnt of steps, import measurements.", no_args_is_help=True)
policy = typer.Typer(help="Show and change the deciding policy.", no_args_is_help=True)


@fit.command("list")
@guarded
def fit_list(context: typer.Context, output: Output = Format.TABLE) -> None:
    """List what was learnt of steps (as `get fits` does)."""
    from headrace.cli import fits

    fits.get_fits(session_of(context), (), output)


@fit.command("import")
@guarded
def fit_import(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(help="JSON lines of `headrace profile`, or CSV with the same columns."),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, change nothing.")
    ] = False,
) -> None:
    """Tell the control plane what was measured apart from any job, to fit to it.

    All rows are taken or none; rows without figures are left out.
    """
    from headrace.cli import fits

    fits.import_files(session_of(context), files, dry_run=dry_run)


@queue.command("list")
@guarded
def queue_list(context: typer.Context, output: Output = Format.TABLE) -> None:
    """List queues with what they hold."""
    from headrace.cli import get

    get.get_others(session_of(context), "queue", (), output)


@queue.command("set")
@guarded
def queue_set(
    context: typer.Context,
    name: QueueName,
    quota: Annotated[
        int | None,
        typer.Option(help="Accelerators that its jobs may hold; -1 for no limit.", min=-1),
    ] = None,
    borrow: Annotated[
        int | None,
        typer.Option(
            help="So many more, while no other queue's quota needs them; -1 for no limit.", min=-1
        ),
    ] = None,
    submitter: Annotated[
        list[str] | None,
        typer.Option(help="Who may submit to it; repeatable; '*' for everyone."),
    ] = None,
    from_namespace: Annotated[
        list[str] | None,
        typer.Option(help="Namespace whose jobs it takes; repeatable; '*' for all."),
    ] = None,
    force_conflicts: Force = False,
) -> None:
    """Create a queue, or change what is given of one."""
    from headrace.cli import admin

    wish = admin.QueueWish(quota, borrow, submitter, from_namespace)
    admin.set_queue(session_of(context), name, wish, force=force_conflicts)


@queue.command("delete")
@guarded
def queue_delete(context: typer.Context, name: QueueName) -> None:
    """Delete an empty queue."""
    from headrace.cli import admin

    admin.delete_queue(session_of(context), name)


@policy.command("get")
@guarded
def policy_get(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Only this setting.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Show the policy and its settings. With a name, or -o wide, also what they mean."""
    from headrace.cli import policy as work

    work.get_policy(session_of(context), name, output)


@policy.command("set")
@guarded
def policy_set(
    context: typer.Context,
    settings: Annotated[
        list[str],
        typer.Argument(help="name=value, or name=default.", metavar="NAME=VALUE..."),
    ],
    dry_run: DryRun = False,
    force_conflicts: Force = False,
    output: Output = Format.TABLE,
) -> None:
    """Change settings, for example: policy set policy=fifo period_seconds=2."""
    from headrace.cli import policy as work

    if dry_run:
        work.try_policy(session_of(context), settings, 0, output)
    else:
        work.set_policy(session_of(context), settings, force=force_conflicts)


@policy.command("history")
@guarded
def policy_history(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Tell which settings there were, who set them, and when; newest first."""
    from headrace.cli import policy as work

    work.history(session_of(context), output)


@policy.command("rollback")
@guarded
def policy_rollback(
    context: typer.Context,
    version: Annotated[int, typer.Argument(help="As `policy history` numbers it.", min=1)],
    dry_run: DryRun = False,
    force_conflicts: Force = False,
    output: Output = Format.TABLE,
) -> None:
    """Set what a version had, as a new version."""
    from headrace.cli import policy as work

    if dry_run:
        work.try_policy(session_of(context), [], version, output)
    else:
        work.roll_back(session_of(context), version, force=force_conflicts)


@guarded
def drain(context: typer.Context, node: NodeName) -> None:
    """Empty a node: what runs there moves away, and nothing new is placed there."""
    from headrace.cli import admin

    admin.drain(session_of(context), node, drained=True)


@guarded
def uncordon(context: typer.Context, node: NodeName) -> None:
    """Let jobs run on a drained node again."""
    from headrace.cli import admin

    admin.drain(session_of(context), node, drained=False)


@guarded
def remove_node(context: typer.Context, node: NodeName) -> None:
    """Forget a node that is lost for good."""
    from headrace.cli import admin

    admin.remove_node(session_of(context), node)


@guarded
def snapshot(
    context: typer.Context,
    output: Annotated[
        str, typer.Option("--output", "-o", help="File to write; - for standard output.")
    ] = "-",
) -> None:
    """Export the cluster as the deciding loop sees it, to simulate or to replay."""
    from headrace.cli import admin

    admin.snapshot(session_of(context), output)


@guarded
def backup(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="File to write; - for standard output.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it is there already.")
    ] = False,
) -> None:
    """Write a consistent copy of the store, while everything runs."""
    from headrace.cli import admin

    admin.backup(session_of(context), file, force=force)


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    app.add_typer(fit, name="fit", rich_help_panel=_PANEL)
    app.add_typer(queue, name="queue", rich_help_panel=_PANEL)
    app.add_typer(policy, name="policy", rich_help_panel=_PANEL)
    for command in (drain, uncordon, snapshot, backup):
        app.command(rich_help_panel=_PANEL)(command)
    app.command("remove-node", rich_help_panel=_PANEL)(remove_node)
