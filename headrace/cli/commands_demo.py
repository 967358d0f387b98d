"""Commands that show what happened: names, options and help."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.output import say
from headrace.cli.session import guarded, session_of

_PAGE = Path("headrace-report.html")


@guarded
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster running.")] = False,
    limit: Annotated[
        float, typer.Option(help="Longest time for everything, in seconds.", min=60)
    ] = 1200,
    report: Annotated[Path, typer.Option(help="Where the report goes.", metavar="FILE")] = _PAGE,
    home: Annotated[
        Path | None,
        typer.Option(help="Folder of the demo's cluster; else a temporary one.", metavar="DIR"),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Folder with gpt.yaml, llama.yaml, vit.yaml.", metavar="DIR")
    ] = None,
    scale: Annotated[
        int, typer.Option(help="Factor for the jobs' steps; 0: 1 on CPUs, 10 on GPUs.", min=0)
    ] = 0,
) -> None:
    """Start a cluster, train three jobs that share it, check what happened, write a report."""
    from headrace.cli import demo as work

    work.demo(work.Options(keep, limit, report, home, examples, scale))


@guarded
def report(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="The HTML file to write.")] = _PAGE,
) -> None:
    """Write the cluster's timeline, losses, jobs and decisions as one HTML page."""
    from headrace.cli.report import write_report

    with session_of(context).client() as client:
        write_report(client, path)
    say(str(path))


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    app.command(rich_help_panel="Local cluster")(demo)
    app.command(rich_help_panel="Jobs")(report)
