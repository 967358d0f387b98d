"""``headrace coverage`` and ``predict``: their names, options and help."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.output import Format
from headrace.cli.session import guarded, session_of

Output = Annotated[Format, typer.Option("--output", "-o", help="What to print.")]


@guarded
def coverage(
    context: typer.Context,
    output: Output = Format.TABLE,
    plot: Annotated[
        Path | None,
        typer.Option(help="Also draw promised against reached, day by day.", metavar="FILE.svg"),
    ] = None,
) -> None:
    """Show how often jobs ended when it was predicted, against what was promised.

    Counted are the first prediction after a submission and the first after a start.
    """
    from headrace.cli import coverage as work

    work.coverage(session_of(context), output, plot)


@guarded
def predict(
    context: typer.Context,
    filename: Annotated[
        list[str],
        typer.Option("--filename", "-f", help="File, folder, or - for standard input; repeatable."),
    ],
    snapshot: Annotated[
        str,
        typer.Option(
            help="What `headrace snapshot -o FILE` wrote; the live cluster if left out.",
            metavar="FILE",
        ),
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Predict when jobs would start and end, on what and under which plan, and how surely.

    The cluster is played forward with them under its own policy, each time with other run times.
    Nothing is submitted.
    """
    from headrace.cli import predict as work

    work.predict(session_of(context), tuple(filename), snapshot, output)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("predict", rich_help_panel="Jobs")(predict)
    app.command("coverage", rich_help_panel="Administration")(coverage)
