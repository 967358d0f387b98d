"""Commands about the local cluster and about this installation: names, options and help."""

from pathlib import Path
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
        bool,
        typer.Option("--foreground", help="Stay, and end the cluster on Ctrl-C (exit status 130)."),
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
def profile(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Preset, e.g. gpt2-1.26b.")],
    accelerators: Annotated[int, typer.Option(help="Accelerators to measure on.", min=1)] = 1,
    batch: Annotated[int, typer.Option(help="Samples of a step.", min=1)] = 16,
    sequence_length: Annotated[
        int, typer.Option(help="Tokens of a sample; 0 for the preset's.", min=0)
    ] = 0,
    plans: Annotated[
        str,
        typer.Option(help="Plans, separated by commas; else those that docs/profiling.md says."),
    ] = "",
    seconds: Annotated[
        float, typer.Option(help="Time for everything, start included.", min=10)
    ] = 210,
    output: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines; what is there already is not measured again.", metavar="FILE"
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option("--report", help="Tell the control plane what was measured, to fit to it."),
    ] = False,
) -> None:
    """Measure execution plans of a model on this machine's accelerators.

    Rows go to profile-MODEL-N.jsonl unless --output says otherwise, as they are measured. What was
    measured elsewhere is told by `headrace fit import FILE`.
    """
    from headrace.cli import profile as work

    named = [each.strip() for each in plans.split(",") if each.strip()]
    work.profile(
        work.Wish(model, accelerators, batch, sequence_length, named, seconds, output),
        session_of(context) if report else None,
    )


@guarded
def plans(
    model: Annotated[
        str, typer.Argument(help="Preset, e.g. gpt2-1.26b, or a config.json of Hugging Face.")
    ],
    accelerators: Annotated[int, typer.Option(help="Accelerators of the plans.", min=1)] = 1,
    batch: Annotated[int, typer.Option(help="Samples of a step.", min=1)] = 16,
    sequence_length: Annotated[
        int, typer.Option(help="Tokens of a sample; 0 for the model's.", min=0)
    ] = 0,
    memory: Annotated[
        str,
        typer.Option(
            help="Memory of one accelerator, e.g. 80GiB; else none is too small.",
            metavar="QUANTITY",
        ),
    ] = "",
    precision: Annotated[
        str, typer.Option(help="fp32 or bf16, as training.precision in a manifest.")
    ] = "fp32",
    named: Annotated[
        str, typer.Option("--plans", help="Only these, separated by commas, possible or not.")
    ] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Those that cannot run too, each with its reason.")
    ] = False,
    output: Annotated[Format, typer.Option("--output", "-o", help="What to print.")] = Format.TABLE,
) -> None:
    """List the execution plans that can train a model, and the memory that each needs.

    Memory is estimated, of the fullest rank, in GiB; -o wide tells its parts. Nothing is started.
    """
    from headrace.cli import plans as work

    chosen = [each.strip() for each in named.split(",") if each.strip()]
    work.plans(
        work.Question(
            model, accelerators, batch, sequence_length, memory, precision, chosen, everything
        ),
        output,
    )


@guarded
def simulate(context: typer.Context) -> None:
    """Play a snapshot of a cluster, a scenario, or a trace of measured jobs, in virtual time.

    --snapshot FILE is what `headrace snapshot -o FILE` wrote, --scenario FILE a YAML file with
    nodes, jobs and faults; --workload NAME compares policies on a trace. `headrace simulate
    --help` shows all options and a scenario.
    """
    import subprocess
    import sys

    from headrace.cli.local_cluster import missing_packages

    if missing_packages(["simulator"]):
        raise CommandError(
            ExitCode.FAILED,
            "this needs simulator, not installed here: pip install headrace-server",
        )
    raise typer.Exit(subprocess.call([sys.executable, "-m", "simulator", *context.args]))


@guarded
def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="What `headrace backup` wrote.")],
    database_url: Annotated[
        str,
        typer.Option(
            help="Empty database to fill; the local cluster's own store if left out.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Restore the store from a backup, while no control plane uses it."""
    from headrace.cli import restore as work

    if database_url:
        work.restore_database(file, database_url)
    else:
        work.restore_home(session_of(context).home, file)


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    for command in (up, down, status):
        app.command(rich_help_panel=_PANEL)(command)
    app.command(rich_help_panel=_PANEL)(plans)
    app.command(rich_help_panel=_PANEL)(profile)
    app.command()(version)
    passing = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(rich_help_panel="Administration", context_settings=passing)(simulate)
    app.command(rich_help_panel="Administration")(restore)
