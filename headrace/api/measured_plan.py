"""Rows about plans as messages: the agent tells them, the control plane keeps and lists them."""

from headrace.api.generated import common_pb2
from headrace.api.profile_rows import PlanRow, Row, flat, row_of

_FIELDS = frozenset(common_pb2.MeasuredPlan.DESCRIPTOR.fields_by_name)


def row_to_wire(row: PlanRow) -> common_pb2.MeasuredPlan:
    """A row as a message. The price of the switch before it is told elsewhere."""
    known = {name: value for name, value in flat(row).items() if value is not None}
    return common_pb2.MeasuredPlan(**{name: known[name] for name in known.keys() & _FIELDS})


def row_from_wire(message: common_pb2.MeasuredPlan) -> PlanRow:
    """The row that a message is.

    Raises:
        ValueError: It has a status that is not known here.
    """
    names = {field.name for field in message.DESCRIPTOR.fields if not field.has_presence}
    names |= {field.name for field, _ in message.ListFields()}
    row: Row = row_of({"kind": "plan", **{name: getattr(message, name) for name in names}})
    assert isinstance(row, PlanRow)
    return row
