"""Other versions of the wire, made from descriptors alone: an earlier one, and one to come."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from headrace.api.generated import nodes_pb2

PACKAGE = "headrace.v1alpha1"
EARLIER_IMAGE = Path(__file__).parents[2] / "fixtures" / "protos-before-0.1.0.binpb"
NOVELTY = "novelty"
"""A text field that every message of the next version has, and none of today's."""
INTENT_PAUSE = 99
"""An intent of the next version."""

_FIELD = descriptor_pb2.FieldDescriptorProto
_NOVELTY_NUMBER, _PAUSED_NUMBER = 4000, 4001


class Dialect:
    """What one version of the wire can say.

    Attributes:
        name: The version, for people.
    """

    def __init__(self, name: str, files: Iterable[descriptor_pb2.FileDescriptorProto]) -> None:
        self.name = name
        self._pool = descriptor_pool.DescriptorPool()
        for file in files:
            self._pool.AddSerializedFile(file.SerializeToString())

    def message(self, name: str, /, **fields: Any) -> Any:
        """A message of this version, with every novelty that it has."""
        descriptor = self._pool.FindMessageTypeByName(f"{PACKAGE}.{name}")
        made = message_factory.GetMessageClass(descriptor)(**fields)
        for part in _parts(made):
            if NOVELTY in part.DESCRIPTOR.fields_by_name:
                setattr(part, NOVELTY, "said by a newer version")
        return made

    def call(self, channel: Any, method: str) -> Any:
        """A method of the node service over this channel, with the messages of this version."""
        described = self._method(method)
        make = channel.unary_stream if described.server_streaming else channel.unary_unary
        return make(
            f"/{PACKAGE}.NodeService/{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=self._class(described.output_type).FromString,
        )

    def requests(self, method: str) -> Any:
        """Reads what a caller of this method of the node service says."""
        return self._class(self._method(method).input_type).FromString

    def _method(self, name: str) -> Any:
        service = self._pool.FindServiceByName(f"{PACKAGE}.NodeService")
        return service.methods_by_name[name]

    @staticmethod
    def _class(descriptor: Any) -> Any:
        return message_factory.GetMessageClass(descriptor)


def earlier_version() -> Dialect:
    """The wire of a day before 0.1.0, when fewer fields were known."""
    image = descriptor_pb2.FileDescriptorSet.FromString(EARLIER_IMAGE.read_bytes())
    return Dialect("before 0.1.0", image.file)


def next_version() -> Dialect:
    """Today's wire and more: a field in every message, an intent, a kind of report, a method."""
    files = list(_with_what_it_needs(nodes_pb2.DESCRIPTOR))
    for file in files:
        if file.package == PACKAGE:
            for message in _nested(file.message_type):
                _add_field(message, NOVELTY, _NOVELTY_NUMBER, type=_FIELD.TYPE_STRING)
    nodes = files[-1]
    messages = {message.name: message for message in nodes.message_type}
    intent = messages["Launch"].enum_type[0]
    intent.value.add(name="INTENT_PAUSE", number=INTENT_PAUSE)
    _add_field(
        messages["ReportRequest"],
        "paused",
        _PAUSED_NUMBER,
        type=_FIELD.TYPE_MESSAGE,
        label=_FIELD.LABEL_REPEATED,
        type_name=f".{PACKAGE}.UnitStarted",
    )
    nodes.service[0].method.add(
        name="PauseNode",
        input_type=f".{PACKAGE}.WatchAssignmentsRequest",
        output_type=f".{PACKAGE}.ReportResponse",
    )
    return Dialect("next", files)


def _with_what_it_needs(file: Any) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    """The file after all that it imports, each once."""
    seen: set[str] = set()

    def walk(one: Any) -> Iterator[descriptor_pb2.FileDescriptorProto]:
        if one.name not in seen:
            seen.add(one.name)
            for needed in one.dependencies:
                yield from walk(needed)
            copy = descriptor_pb2.FileDescriptorProto()
            one.CopyToProto(copy)
            yield copy

    yield from walk(file)


def _nested(
    messages: Iterable[descriptor_pb2.DescriptorProto],
) -> Iterator[descriptor_pb2.DescriptorProto]:
    for message in messages:
        if not message.options.map_entry:
            yield message
        yield from _nested(message.nested_type)


def _add_field(
    message: descriptor_pb2.DescriptorProto, name: str, number: int, **more: Any
) -> None:
    message.field.add(name=name, number=number, **{"label": _FIELD.LABEL_OPTIONAL, **more})


def _parts(message: Any) -> Iterator[Any]:
    """The message and every message in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for part in [value] if isinstance(value, Message) else value:
            yield from _parts(part)
