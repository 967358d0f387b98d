"""Reads manifests from YAML text and remembers on which line everything stands.

The YAML is what ``kubectl`` accepts, minus its traps: a key that stands twice is refused instead
of the later one winning, ``1e-3`` is a number, and ``2026-11-26`` and ``1:30`` stay text.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from headrace.api.manifest import TrainingJob
from headrace.api.manifest_kinds import ClusterObject
from headrace.api.manifest_kinds import read as read_object
from headrace.api.refusal import Problem

SUFFIXES = (".yaml", ".yml", ".json")
_MOST_BYTES = 4 * 2**20
_MOST_NODES = 200_000
_DEEPEST = 64
_COLLECTIONS = frozenset({"tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"})

Keys = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with the place where it stands; ``line`` counts from 1, 0 for a whole file."""

    file: str
    line: int
    problem: Problem

    def __str__(self) -> str:
        if not self.line and not self.problem.path:
            return f"{self.file}: {self.problem.message}"
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.problem}"


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """One document of a file: its plain value and the line of everything in it."""

    file: str
    value: object
    lines: Mapping[Keys, int]

    def line_of(self, path: Keys) -> int:
        """Line of the place, or of what is nearest above it for something that is missing."""
        return next(
            self.lines[path[:length]]
            for length in range(len(path), -1, -1)
            if path[:length] in self.lines
        )

    def finding(self, problem: Problem) -> Finding:
        """The problem with its file and line."""
        return Finding(self.file, self.line_of(problem.path), problem)


@dataclass(frozen=True, slots=True)
class SourcedJob:
    """A job with the document that described it, so that later refusals can name the line."""

    job: TrainingJob
    source: SourceDocument


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2, where numbers are concerned."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag.rsplit(":", 1)[-1] not in ("timestamp", "float", "int")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"([-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"([-+]?(\.[0-9]+|[0-9]+\.[0-9]*|(0|[1-9][0-9]*)(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$"
    ),
    list("-+.0123456789"),
)


class _UnreadableError(Exception):
    """Stops the reading of one file at a line."""

    def __init__(self, line: int, path: Keys, sentence: str) -> None:
        super().__init__(sentence)
        self.line = line
        self.problem = Problem(path, sentence)


def documents_in(text: str, file: str) -> tuple[tuple[SourceDocument, ...], tuple[Finding, ...]]:
    """The documents of a YAML text, and what cannot be read in it. Empty documents are skipped."""
    documents: list[SourceDocument] = []
    if len(text) > _MOST_BYTES:
        sentence = f"wanted at most {_MOST_BYTES} characters, got {len(text)}"
        return (), (Finding(file, 0, Problem((), sentence)),)
    try:
        loader = _Loader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                assert node is not None
                lines: dict[Keys, int] = {(): node.start_mark.line + 1}
                value = _plain(loader, node, (), lines)
                if value is not None:
                    documents.append(SourceDocument(file, value, lines))
        finally:
            loader.dispose()
    except _UnreadableError as error:
        return tuple(documents), (Finding(file, error.line, error.problem),)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = ", ".join(part for part in (error.context, error.problem) if part)
        line = mark.line + 1 if mark else 0
        return tuple(documents), (Finding(file, line, Problem((), f"is not YAML: {told}")),)
    except (yaml.YAMLError, RecursionError) as error:
        told = str(error).splitlines()[0]
        return tuple(documents), (Finding(file, 0, Problem((), f"is not YAML: {told}")),)
    return tuple(documents), ()


def _plain(loader: _Loader, node: yaml.Node, path: Keys, lines: dict[Keys, int]) -> object:
    """The value of a node; notes the line of every key and entry on the way."""
    line = node.start_mark.line + 1
    if len(path) > _DEEPEST or len(lines) > _MOST_NODES:
        # Aliases can make a short text explode, or contain itself.
        raise _UnreadableError(line, (), "is too deep or too large for a manifest")
    if isinstance(node, yaml.ScalarNode):
        try:
            return loader.construct_object(node)
        except ValueError as error:
            raise _UnreadableError(line, path, f"cannot be read: {error}") from error
    if node.tag not in _COLLECTIONS:
        raise _UnreadableError(line, path, f"has the tag {node.tag}, which is not read")
    if isinstance(node, yaml.SequenceNode):
        entries: list[object] = []
        for index, child in enumerate(node.value):
            lines[*path, index] = child.start_mark.line + 1
            entries.append(_plain(loader, child, (*path, index), lines))
        return entries
    fields: dict[str, object] = {}
    for key_node, child in node.value:
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise _UnreadableError(key_line, path, "wanted text as a key, got a list or mapping")
        key = key_node.value
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise _UnreadableError(
                key_line, path, "merge keys (<<) are not read; write the fields out"
            )
        if key in fields:
            first = lines[*path, key]
            raise _UnreadableError(
                key_line, (*path, key), f"stands twice; it is already there on line {first}"
            )
        lines[*path, key] = key_line
        fields[key] = _plain(loader, child, (*path, key), lines)
    return fields


@dataclass(frozen=True, slots=True)
class SourcedClusterObject:
    """A queue or a policy with the document that described it."""

    object: ClusterObject
    source: SourceDocument


@dataclass(frozen=True, slots=True)
class Manifests:
    """What manifests describe, and everything that is wrong with them.

    Attributes:
        jobs: In order.
        cluster: What belongs to the cluster as a whole, in order.
        findings: What is wrong, by line.
    """

    jobs: tuple[SourcedJob, ...] = ()
    cluster: tuple[SourcedClusterObject, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __add__(self, more: "Manifests") -> "Manifests":
        return Manifests(
            self.jobs + more.jobs, self.cluster + more.cluster, self.findings + more.findings
        )

    @property
    def is_nothing(self) -> bool:
        """Whether nothing at all stood there."""
        return not (self.jobs or self.cluster or self.findings)

    def jobs_alone(self) -> tuple[tuple[SourcedJob, ...], tuple[Finding, ...]]:
        """The jobs, and what is wrong where nothing but jobs is wanted."""
        others = (
            each.source.finding(Problem(("kind",), f"wanted TrainingJob, got {each.object.kind}"))
            for each in self.cluster
        )
        return self.jobs, (*self.findings, *others)


def objects_in(text: str, file: str) -> Manifests:
    """What a YAML text describes."""
    documents, unreadable = documents_in(text, file)
    read = Manifests(findings=unreadable)
    for document in documents:
        found = read_object(document.value)
        if isinstance(found, TrainingJob):
            read += Manifests(jobs=(SourcedJob(found, document),))
        elif isinstance(found, tuple):
            wrong = sorted(map(document.finding, found), key=lambda each: each.line)
            read += Manifests(findings=tuple(wrong))
        else:
            read += Manifests(cluster=(SourcedClusterObject(found, document),))
    return read


def jobs_in(text: str, file: str) -> tuple[tuple[SourcedJob, ...], tuple[Finding, ...]]:
    """The jobs of a YAML text, and everything that is wrong with it, by line."""
    return objects_in(text, file).jobs_alone()


def files_at(path: Path) -> Iterator[Path]:
    """The manifest files that a path names: itself, or those in the folder, by name."""
    if path.is_dir():
        yield from sorted(
            child for child in path.iterdir() if child.suffix in SUFFIXES and child.is_file()
        )
    else:
        yield path


def read_jobs(
    paths: tuple[str, ...], standard_input: str
) -> tuple[tuple[SourcedJob, ...], tuple[Finding, ...]]:
    """The jobs of files, folders and standard input (``-``), and what is wrong with them.

    Args:
        paths: As given on the command line.
        standard_input: What ``-`` stands for.
    """
    return read_objects(paths, standard_input).jobs_alone()


def read_objects(paths: tuple[str, ...], standard_input: str) -> Manifests:
    """What files, folders and standard input (``-``) describe.

    Args:
        paths: As given on the command line.
        standard_input: What ``-`` stands for.
    """
    read = Manifests()
    for name in paths:
        if name == "-":
            found = objects_in(standard_input, "standard input")
        else:
            found = _objects_at(Path(name))
        if found.is_nothing:
            # Not per file: one that is commented out may lie in a folder of manifests.
            sentence = "wanted a TrainingJob, found no document"
            found = Manifests(findings=(_whole(name, sentence),))
        read += found
    return read + Manifests(findings=tuple(_repeated(read)))


def _objects_at(path: Path) -> Manifests:
    """What a file or folder describes."""
    read = Manifests()
    files = list(files_at(path))
    if not files:
        sentence = f"wanted a folder with {', '.join(SUFFIXES)} files, found none in it"
        return Manifests(findings=(_whole(path, sentence),))
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            told = getattr(error, "strerror", None) or str(error)
            read += Manifests(findings=(_whole(file, f"cannot be read: {told}"),))
            continue
        read += objects_in(text, str(file))
    return read


def _whole(file: Path | str, sentence: str) -> Finding:
    """A problem with a whole file."""
    return Finding("standard input" if file == "-" else str(file), 0, Problem((), sentence))


def _repeated(read: Manifests) -> Iterator[Finding]:
    """What is described twice in one go: which of the two was meant?"""
    seen: dict[tuple[str, ...], SourceDocument] = {}
    jobs = (
        (("job", each.job.metadata.namespace, each.job.metadata.name), each.source)
        for each in read.jobs
    )
    cluster = (
        ((each.object.kind, each.object.metadata.name), each.source) for each in read.cluster
    )
    for key, source in (*jobs, *cluster):
        first = seen.setdefault(key, source)
        if first is not source:
            place = f"{first.file}:{first.line_of(('metadata', 'name'))}"
            sentence = f"{'/'.join(key[1:])} is described twice, first at {place}"
            yield source.finding(Problem(("metadata", "name"), sentence))
