"""``headrace what-if``: its name, options and help."""

from typing import Annotated

import typer

from headrace.cli.output import Format
from headrace.cli.session import guarded, session_of

Snapshot = Annotated[
    str,
    typer.Option(
        help="What `headrace snapshot -o FILE` wrote; the live cluster if left out.",
        metavar="FILE",
    ),
]
AddNodes = Annotated[
    list[str] | None,
    typer.Option(
        help="Nodes that join, as 2x8 or 2x8:TYPE for two of 8 accelerators; repeatable.",
        metavar="NODES",
    ),
]
RemoveNode = Annotated[
    list[str] | None,
    typer.Option(help="Node that is lost at once; repeatable.", metavar="NAME"),
]
Drain = Annotated[
    list[str] | None, typer.Option(help="Node that is drained; repeatable.", metavar="NAME")
]
Quota = Annotated[
    list[str] | None,
    typer.Option(
        help="Accelerators that a queue may hold, -1 for no limit; repeatable.",
        metavar="QUEUE=N",
    ),
]
Submit = Annotated[
    list[str] | None,
    typer.Option(
        help="Jobs that are submitted: file, folder, or - for standard input; repeatable.",
        metavar="FILE",
    ),
]
PolicyName = Annotated[str, typer.Option(help="Policy that decides from then on.", metavar="NAME")]
SwitchSeconds = Annotated[
    float | None,
    typer.Option(
        help="What a start or a change takes, in both cases; else what this cluster saw.",
        min=0,
        max=86_400,
        metavar="SECONDS",
    ),
]
StepSeconds = Annotated[
    list[str] | None,
    typer.Option(
        help="What a step of a job takes on what it asks for; without a name, of every job of "
        "which nothing is known; repeatable.",
        metavar="[NAME=]SECONDS",
    ),
]
Output = Annotated[Format, typer.Option("--output", "-o", help="What to print.")]


@guarded
def what_if(
    context: typer.Context,
    snapshot: Snapshot = "",
    add_nodes: AddNodes = None,
    remove_node: RemoveNode = None,
    drain: Drain = None,
    quota: Quota = None,
    submit: Submit = None,
    policy: PolicyName = "",
    switch_seconds: SwitchSeconds = None,
    step_seconds: StepSeconds = None,
    output: Output = Format.TABLE,
) -> None:
    """Play a change of the cluster in virtual time, and show who gains and who is hurt.

    The cluster is played twice to the end of all jobs: as it is, and with the changes. Without any
    change it is played once. Nothing is touched.
    """
    from headrace.cli import what_if as work

    wish = work.Wish(
        snapshot,
        tuple(add_nodes or ()),
        tuple(remove_node or ()),
        tuple(drain or ()),
        tuple(quota or ()),
        tuple(submit or ()),
        policy,
        switch_seconds,
        tuple(step_seconds or ()),
    )
    work.what_if(session_of(context), wish, output)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("what-if", rich_help_panel="Administration")(what_if)
