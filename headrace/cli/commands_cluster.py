"""Commands about the local cluster and about this installation: names, options and help."""

from typing import Annotated

import typer

from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import Format, note, say
from headrace.cli.session import guarded, session_of

_PANEL = "Local cluster"


@guarded
def up(
    context: typer.Context,
    nodes: Annotated[int, typer.Option(help="Nodes to play.", min=1, max=64)] = 2,
    slots: Annotated[
        int, typer.Option(help="CPU slots of each node, where there are no GPUs.", min=1, max=256)
    ] = 2,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="CPU slots even where there are GPUs.")
    ] = False,
    dashboard: Annotated[bool, typer.Option(help="Start Ray's dashboard.")] = True,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and end the cluster on Ctrl-C.")
    ] = False,
    listed: Annotated[
        bool, typer.Option("--list", help="Only list what is running (as `status` does).")
    ] = False,
) -> None:
    """Start a local cluster: control plane, Ray and agents that play nodes.

    The nodes share the GPUs that CUDA_VISIBLE_DEVICES leaves, or all. Its numbers go
    along the PCI bus, as in CUDA under CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    from headrace.cli import up as work
    from headrace.cli.local_cluster import Wish

    home = session_of(context).home
    if listed:
        work.status(home, Format.TABLE)
        return
    found = () if cpu else work.gpus()
    if found and len(found) < nodes:
        note(f"headrace: {len(found)} GPUs make {len(found)} nodes, not {nodes}")
        nodes = len(found)
    work.up(home, Wish(nodes, slots, found, dashboard), foreground=foreground)


@guarded
def down(context: typer.Context) -> None:
    """End the local cluster and nothing else. Jobs, checkpoints and the store stay."""
    from headrace.cli import up as work

    work.down(session_of(context).home)


@guarded
def status(
    context: typer.Context,
    output: Annotated[Format, typer.Option("--output", "-o", help="What to print.")] = Format.TABLE,
) -> None:
    """List every process of the local cluster."""
    from headrace.cli import up as work

    work.status(session_of(context).home, output)


@guarded
def version(
    context: typer.Context,
    client_only: Annotated[bool, typer.Option("--client", help="Ask no control plane.")] = False,
) -> None:
    """Print the versions of this command and of the control plane."""
    from importlib.metadata import version as version_of

    say(f"headrace {version_of('headrace')}")
    if client_only:
        return
    from headrace.client.context import NoContextError

    try:
        with session_of(context).client(patience_seconds=0.0) as client:
            cluster = client.cluster()
    except NoContextError as error:
        note(f"headrace: {error}")
        return
    say(f"control plane {cluster.version} at {client.context.server}")


@guarded
def simulate(context: typer.Context) -> None:
    """Replay a snapshot or trace in virtual time; takes the simulator's own arguments."""
    raise typer.Exit(_server_program("simulator", context.args))


@guarded
def restore(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="What `headrace backup` wrote.")],
    database_url: Annotated[
        str,
        typer.Option(
            help="Empty database to fill; the local cluster's own store if left out.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Restore the store from a backup, while no control plane uses it."""
    from headrace.cli import local_cluster

    if not database_url:
        home = session_of(context).home
        record = local_cluster.read_record(home)
        if record is not None and record.supervised:
            raise CommandError(
                ExitCode.REFUSED,
                f"the cluster of {home} is running on that store; `headrace down` first",
            )
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = local_cluster.set_store_aside(home)
        if kept is not None:
            note(f"the store that was there is kept as {kept}")
        database_url = local_cluster.database_url(home)
    arguments = ["restore", "--from", file, "--database-url", database_url]
    raise typer.Exit(_server_program("controlplane", arguments))


def _server_program(module: str, arguments: list[str]) -> int:
    """Runs a program of the server side, if that is installed here; returns its exit status."""
    import subprocess
    import sys

    from headrace.cli.local_cluster import missing_packages

    if missing_packages([module]):
        raise CommandError(
            ExitCode.FAILED,
            f"this needs {module}, not installed here: pip install headrace-server",
        )
    return subprocess.call([sys.executable, "-m", module, *arguments])


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    for command in (up, down, status):
        app.command(rich_help_panel=_PANEL)(command)
    app.command()(version)
    passing = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(rich_help_panel="Administration", context_settings=passing)(simulate)
    app.command(rich_help_panel="Administration")(restore)
