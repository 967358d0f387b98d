"""Writes docs/cli.md and docs/manifest.md from the commands and the schema themselves.

``python -m headrace.cli.reference docs`` writes them; a test proves that they are current.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
import typer.main

from headrace.api.manifest import json_schema
from headrace.api.manifest_kinds import schema_of
from headrace.api.manifest_model import DIGITS, RANDOM, STDLIB
from headrace.api.model_choice import presets_of
from headrace.api.models import Family
from headrace.api.plan import PipelineSchedule
from headrace.api.runtime import PROCESSES
from headrace.cli.exit_codes import MEANINGS

_NOTE = "<!-- Written by `make docs` from the sources. Do not edit. -->"


def cli_reference() -> str:
    """The commands as Markdown."""
    from headrace.cli.main import app

    root = typer.main.get_command(app)
    lines = ["# The `headrace` command", "", _NOTE, "", *_CLI_INTRODUCTION.splitlines(), ""]
    lines += ["## Exit status", "", "| status | meaning |", "|---|---|"]
    lines += [f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items()]
    lines += ["", "## Options of every command", "", "Before or behind its name.", ""]
    lines += [*_options(root), ""]
    lines += list(_commands(root, "headrace"))
    return "\n".join(lines).rstrip() + "\n"


_CLI_INTRODUCTION = """\
Results go to standard output, everything else to standard error. Tables fit the terminal (80
columns where there is none); `-o wide` is as wide as it needs to be, `-o json`, `-o yaml` and
`-o name` are for programs. Colour is used only on a terminal, and not if `NO_COLOR` is set.

The control plane is named by `--server`, else by `$HEADRACE_SERVER`, else by `context.json` in
`$HEADRACE_HOME` (default `~/.headrace`), which `headrace up` writes. `headrace
--install-completion` installs completion for your shell.

`logs -f`, `get -w` and `apply --wait` go on over a restart of the control plane, and notice within
half a minute that its host has vanished; `logs -f` also follows a job into its next attempt."""


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        here = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from _commands(command, here)
            continue
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        usage = " ".join([here, "[OPTIONS]", *(_usage(each) for each in arguments)])
        yield from (f"## `{here}`", "", f"    {usage}", "")
        yield from (*" ".join((command.help or "").split()).replace(". ", ".\n").splitlines(), "")
        yield from (f"- `{_usage(each)}`: {each.help}" for each in arguments if each.help)
        yield from _options(command)
        yield ""


def _usage(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper().strip("[].")
    name += "..." if argument.nargs == -1 else ""
    return name if argument.required else f"[{name}]"


def _options(command: Any) -> Iterator[str]:
    for each in command.params:
        if each.param_type_name != "option":
            continue
        flags = ", ".join(f"`{flag}`" for flag in (*each.opts, *each.secondary_opts))
        default = each.default
        shown = default not in (None, "", False, ()) and not callable(default)
        told = f" (default: {getattr(default, 'value', default)})" if shown else ""
        yield f"- {flags}: {each.help}{told}"


def manifest_reference() -> str:
    """The manifests' fields as Markdown."""
    schema = json_schema()
    lines = [
        "# The `TrainingJob` manifest",
        "",
        _NOTE,
        "",
        *_MANIFEST_INTRODUCTION.splitlines(),
        "",
    ]
    lines += ["## Fields", "", *_table(schema)]
    for kind, introduction in _OF_CLUSTER.items():
        lines += ["", f"## The `{kind}` manifest", "", *introduction.splitlines(), ""]
        lines += _table(schema_of(kind))
    return "\n".join(lines) + "\n"


def _table(schema: Mapping[str, Any]) -> Iterator[str]:
    """Every field of a schema, a line each."""
    yield from ("| field | kind | |", "|---|---|---|")
    for each in _fields(schema, schema, ""):
        yield _row(*each)


def _families() -> str:
    learns = {Family.VIT: f"`{DIGITS}`, `{RANDOM}`"}
    text = f"`{STDLIB}`, a path of text, `{RANDOM}`"
    return "\n".join(
        f"| `{family}` | {', '.join(f'`{preset}`' for preset in presets_of(family))} | "
        f"{learns.get(family, text)} |"
        for family in Family
    )


def _schedules() -> str:
    *others, last = (f"`{schedule}`" for schedule in PipelineSchedule)
    return f"{', '.join(others)} or {last}"


_OF_CLUSTER = {
    "Queue": """\
A queue belongs to the cluster as a whole. `headrace apply` and `kubectl apply` take the same file,
`headrace queue set` does the same in one line ([operations/queues.md](operations/queues.md)).
Queues and policy in the files of one `headrace apply` are set before their jobs are submitted.

```yaml
apiVersion: headrace.dev/v1alpha1
kind: Queue
metadata:
  name: research
spec:
  quotaAccelerators: 32
  borrowingAccelerators: 16
  namespaces: [research]
```""",
    "ClusterPolicy": """\
Which policy decides, and all that is set of it, as one object called `default`. What is left out
has its default, also if somebody had set it: a file says the whole. Each change is a version, as
those of `headrace policy set` are ([operations/policy.md](operations/policy.md)).

```yaml
apiVersion: headrace.dev/v1alpha1
kind: ClusterPolicy
metadata:
  name: default
spec:
  policy: rubick
  rubick:
    coolDownSeconds: 600
```""",
}

_MANIFEST_INTRODUCTION = f"""\
A manifest is written as it is for `kubectl apply`, in YAML or JSON, several to a file if you like.
Unknown fields are refused with file, line and the nearest right name. A field that the runtime
cannot honour is refused with the reason, never ignored: {PROCESSES.name} starts no containers and
mounts no volumes.

What Kubernetes or Headrace writes (`uid`, `generation`, `status`) may stay in a manifest that is
applied again; a `uid` must then be the job's present one.

Relative checkpoint stores are meant from `$HEADRACE_HOME` of the local cluster, the one folder
that all of its nodes share. Relative weights, data and working directories are meant from the
manifest's own folder. For a cluster elsewhere, relative paths are refused.

Secrets are referred to and never written down: on a cluster of plain processes `secretKeyRef` names
the file `name/key` below the agent's `$HEADRACE_SECRETS_DIR` (`secrets/` in the home of a local
cluster), which is read when a rank starts.

## Built-in models

`spec.model.name` is a family, `preset` one of its named sizes, and `config` replaces single ones,
under the names that Hugging Face uses:

| family | presets | learns from |
|---|---|---|
{_families()}

Text is read as bytes. `random` gives tokens or images of the model's size, for measurements.

## Execution plans

A plan says how a job is laid out over its accelerators, never what is trained. Its short form is
made of these parts, in this order; what is left out is one, or not used:

| part | meaning |
|---|---|
| `dp4` | data parallel over 4: each has a quarter of the batch |
| `tp2` | tensor parallel over 2 ranks, which share each layer's matrices, and a node |
| `pp2.1f1b` | a pipeline of 2 ranks; its schedule is {_schedules()} |
| `z1`, `z2`, `z3` | ZeRO: replicas share optimizer states, gradients too, parameters too |
| `ga4` | 4 micro-batches a step and replica |
| `gc` | activations are computed again for the backward pass, not kept |
| `offload` | parameters and optimizer states live in host memory |

```yaml
spec:
  accelerators:
    minimum: 1
    maximum: 4
  plans: [dp4, dp2-tp2, pp2.1f1b-ga4, dp1]
```

`spec.plans` names the plans that the job may run under, the best of each number of accelerators
first. It gets as many accelerators as one of them takes. `fifo` and `equal-share` take the first
plan of that number for which they lie right: ranks that are tensor parallel need accelerators of
one node. `rubick` takes the one that it expects to be fastest there, whatever the order, and the
first only where nothing is known of what steps take, as of a script. Each plan is checked when the
job is submitted, against the model, the batch, `microBatchSizeMax` and the accelerators that the
job takes. If the job's plan is no longer among them, or the policy prefers another one, when
`plans` is changed while the job runs, its ranks go over without a restart. So they do when the job
gets more accelerators or has to give some back: new ranks are started while the others train, and
those that leave hand their part over. `headrace describe job` shows what each change cost. Where
that is not possible, the ranks save and others go on from the checkpoint.

A job of a built-in model without `plans` leaves the choice to the policy: `rubick` takes, of all
plans that can train the model, the one that it expects to be fastest where the job is, and
`equal-share` and `fifo` run it data parallel. A job that begins with stored `weights`, and a
script, name their plans or run data parallel under any policy: only the nodes know the sizes of the
one, and only its author those of the other.

## A program of your own

`spec.command.program` is started once on every node of the job, without a shell, in place of a
built-in model. It gets what `torchrun` reads, so that no argument needs to repeat it:

```yaml
spec:
  accelerators:
    minimum: 2
    topology: SameNode # without it the two may be on two nodes, and the program runs on both
  command:
    program: [torchrun, train.py, --epochs, "3"]
    workingDirectory: .
```

| variable | meaning |
|---|---|
| `MASTER_ADDR`, `MASTER_PORT` | where the ranks meet |
| `NNODES`, `NODE_RANK` | nodes of this attempt, and the number of this one |
| `NPROC_PER_NODE`, `LOCAL_WORLD_SIZE` | accelerators on this node |
| `WORLD_SIZE`, `RANK` | accelerators of the job, and the number of the first one here |
| `PET_...` | `MASTER_ADDR` to `NPROC_PER_NODE` again, under the names that `torchrun` reads |

`$(NODE_RANK)` in an argument is replaced by the variable's value, as in Kubernetes; `$NODE_RANK` is
not, because there is no shell. `$(...)` with an unknown name stays as it is, and `$$` elsewhere
becomes `$`: `$$(NODE_RANK)` reaches the program as `$(NODE_RANK)`, and a shell's own `$$` is
written `$$$$`.

A program is told to stop by SIGTERM. Headrace does not know its checkpoints: it must save and find
them itself, for an attempt begins at its beginning.

**It may run twice for a time.** A node that only the network cut off counts as lost after
`node_grace_seconds`, and the next attempt starts elsewhere; what runs on the cut-off node runs on
until its agent is heard again. Built-in models are safe, because a checkpoint store that a newer
attempt has claimed takes nothing from an older one. A program must see to it itself where both can
reach the same files: write under a name that holds the attempt and rename what is whole, or let
a newer attempt's claim in the store end the older. The number is `attempt` in
`$HEADRACE_CONTROL_DIR/launch.json`; the newer attempt has the higher one."""


def _fields(
    part: Mapping[str, Any], schema: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any], bool]]:
    """Every field: its path, itself, what it refers to, and whether it is required."""
    for name, field in part.get("properties", {}).items():
        meant = _meant(field, schema)
        path = f"{prefix}{name}"
        yield path, field, meant, name in part.get("required", ())
        if meant.get("type") == "array":
            yield from _fields(_meant(meant["items"], schema), schema, f"{path}[].")
        else:
            yield from _fields(meant, schema, f"{path}.")


def _meant(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The field without the detour over references and optional branches."""
    if "$ref" in field:
        return _meant(schema["$defs"][field["$ref"].rsplit("/", 1)[-1]], schema)
    if "anyOf" in field and "x-kubernetes-int-or-string" not in field:
        return _meant(next(each for each in field["anyOf"] if each.get("type") != "null"), schema)
    return field


def _row(path: str, field: Mapping[str, Any], meant: Mapping[str, Any], required: bool) -> str:
    described = " ".join((field.get("description") or meant.get("description", "")).split())
    default = field.get("default")
    if required:
        described = f"**Required.** {described}"
    elif default not in (None, "", (), [], {}) and not isinstance(default, dict):
        described = (
            f"{described} Default: `{str(default).lower() if default is False else default}`."
        )
    return f"| `{path}` | {_kind(meant)} | {described} |"


def _kind(meant: Mapping[str, Any]) -> str:
    """What a value looks like, with its bounds."""
    if "const" in meant:
        return f"`{meant['const']}`"
    if "enum" in meant:
        return " or ".join(f"`{each}`" for each in meant["enum"])
    if "x-kubernetes-int-or-string" in meant:
        return "bytes or quantity"
    match meant.get("type"):
        case "integer" | "number":
            word = "whole number" if meant["type"] == "integer" else "number"
            return ", ".join([word, *_bounds(meant)])
        case "string":
            return f"text, at most {meant['maxLength']}" if "maxLength" in meant else "text"
        case "array":
            return f"list, at most {meant['maxItems']}"
        case "object" if meant.get("additionalProperties") or "patternProperties" in meant:
            return f"map of text, at most {meant['maxProperties']}"
        case "boolean":
            return "`true` or `false`"
    return "mapping"


def _bounds(meant: Mapping[str, Any]) -> Iterator[str]:
    for key, word in (
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    ):
        if key in meant:
            yield f"{word} {meant[key]}"


def write(folder: Path) -> None:
    """Writes both documents."""
    (folder / "cli.md").write_text(cli_reference(), encoding="utf-8")
    (folder / "manifest.md").write_text(manifest_reference(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
