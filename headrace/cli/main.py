"""The command line's entry point: names, options and help. What commands do is loaded late."""

from typing import Annotated

import typer

from headrace.cli import commands_admin, commands_cluster, commands_demo, commands_jobs
from headrace.cli.exit_codes import MEANINGS
from headrace.cli.session import Session
from headrace.client.context import home_directory

_EXITS = "\n".join(f"  {int(code):<4} {meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    name="headrace",
    help=f"""Train on a cluster that wastes nothing.

Start here: `headrace up`, then `headrace apply -f examples/`, then `headrace top`.

\b
Exit status:
{_EXITS}
""",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    context: typer.Context,
    server: Annotated[
        str,
        typer.Option(
            help="Control plane, as host:port. Also $HEADRACE_SERVER.", show_default=False
        ),
    ] = "",
    tls_ca: Annotated[
        str, typer.Option(help="Authority that signed the server's certificate.", metavar="FILE")
    ] = "",
    tls_cert: Annotated[
        str, typer.Option(help="This client's certificate, for mTLS.", metavar="FILE")
    ] = "",
    tls_key: Annotated[str, typer.Option(help="The certificate's key.", metavar="FILE")] = "",
    tls_server_name: Annotated[
        str, typer.Option(help="Name that the server's certificate carries.")
    ] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Speak to another machine without TLS.")
    ] = False,
) -> None:
    """Options of every command."""
    context.obj = Session(
        home=home_directory(),
        flags={
            "server": server,
            "ca_file": tls_ca,
            "certificate_file": tls_cert,
            "key_file": tls_key,
            "server_name": tls_server_name,
            "insecure": insecure,
        },
    )


commands_cluster.register(app)
commands_jobs.register(app)
commands_admin.register(app)
commands_demo.register(app)


def run() -> None:
    """Runs the command line; the exit status is documented in docs/cli.md."""
    app()


if __name__ == "__main__":
    run()
