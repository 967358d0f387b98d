"""What a switch cost becomes part of the state, for whoever weighs the next one. Pure."""

from controlplane.domain.changing import changed
from controlplane.domain.record import JobRecord
from controlplane.domain.switch_price import PAID_KEPT, SwitchPrice, price_of, sort_of
from controlplane.engine.observations import model_of

SORTS_KEPT = 256
"""Those of which the last switch was longest ago make room for new ones."""


def paid(prices: dict[str, SwitchPrice], before: JobRecord, after: JobRecord) -> None:
    """Adds the price of the switch that is in the record ``after``, if it was not ``before``."""
    if not after.switches or after.switches[-1:] == before.switches[-1:]:
        return
    switch, model = after.switches[-1], model_of(after.job.spec.manifest_json)
    sort = (model, switch.accelerators_before, switch.accelerators_after, switch.kind)
    known = prices.pop(sort_of(*sort), None) or SwitchPrice(*sort)
    price = price_of(switch)
    prices[sort_of(*sort)] = changed(
        known,
        count=known.count + 1,
        seconds=known.seconds + price,
        last=(*known.last, price)[-PAID_KEPT:],
        last_at=switch.done_at,
    )
    while len(prices) > SORTS_KEPT:
        del prices[next(iter(prices))]
