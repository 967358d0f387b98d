"""The command line: names, options and help. What commands do is loaded late."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup, TyperOption

from headrace.cli import (
    commands_admin,
    commands_cluster,
    commands_demo,
    commands_forecasts,
    commands_jobs,
    commands_what_if,
)
from headrace.cli.exit_codes import MEANINGS
from headrace.cli.output import write_what_streams_can
from headrace.cli.session import KubernetesFlags, Session
from headrace.client.context import home_directory

_EXITS = "\n".join(f"  {int(code):<4} {meaning}" for code, meaning in MEANINGS.items())


class AnywhereGroup(TyperGroup):
    """Takes its own options also behind the command's name, where people write them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Brings them to the front before anything is parsed."""
        return super().parse_args(ctx, self._led_by_own(ctx, args))

    def _led_by_own(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments with this group's options first; nothing behind ``--`` is one."""
        takes_value = {
            name: not each.is_flag
            for each in self.params
            if isinstance(each, TyperOption) and not each.is_eager
            for name in each.opts
        }
        own: list[str] = []
        others: list[str] = []
        left = iter(args)
        for each in left:
            name, equals, _ = each.partition("=")
            if each == "--":
                others += [each, *left]
            elif name not in takes_value:
                others.append(each)
            elif equals or not takes_value[name]:
                own.append(each)
            elif (value := next(left, None)) is not None:
                own += [each, value]
            elif ctx.resilient_parsing:  # a shell completes it, and its value is not there yet
                others.append(each)
            else:
                ctx.fail(f"Option {each!r} requires an argument.")
        return own + others


app = typer.Typer(
    name="headrace",
    cls=AnywhereGroup,
    help=f"""Train on a cluster that wastes nothing.

Start here: `headrace up`, then `headrace apply -f examples/`, then `headrace top`.

The options below may also stand behind the command.

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
    kubernetes: Annotated[
        bool,
        typer.Option(
            "--kubernetes",
            help="Write jobs, queues and the policy as custom resources of the cluster that "
            "kubectl would take. Reading stays with the control plane.",
        ),
    ] = False,
    kubeconfig: Annotated[
        str, typer.Option(help="The same, of the cluster that this file names.", metavar="FILE")
    ] = "",
    kube_context: Annotated[
        str, typer.Option(help="The same, of this context of the kubeconfig.", metavar="NAME")
    ] = "",
) -> None:
    """Options of every command, before or behind its name."""
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
        kubernetes=KubernetesFlags(kubernetes, kubeconfig, kube_context),
    )


commands_cluster.register(app)
commands_jobs.register(app)
commands_admin.register(app)
commands_what_if.register(app)
commands_forecasts.register(app)
commands_demo.register(app)


def run() -> None:
    """Runs the command line; the exit status is documented in docs/cli.md."""
    write_what_streams_can()
    app()


if __name__ == "__main__":
    run()
