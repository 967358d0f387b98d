"""Under which term each operator acts. Pure."""

from collections.abc import Mapping

from controlplane.domain.event import OperatorTermRaised

OPERATORS_REMEMBERED = 64
"""So many operators' terms are kept, those raised last."""


def raised(terms: Mapping[str, int], event: OperatorTermRaised) -> dict[str, int]:
    """The terms after one was raised; a lower one than is known changes nothing."""
    if event.term <= terms.get(event.operator, 0):
        return dict(terms)
    rest = {name: term for name, term in terms.items() if name != event.operator}
    kept = list(rest.items())[-(OPERATORS_REMEMBERED - 1) :]
    return {**dict(kept), event.operator: event.term}
