"""Why a job gets what it gets, in sentences with numbers: what people read in `headrace explain`.

The round is dealt again for the snapshot as it is, which is what the next cycle would do.
"""

from collections.abc import Iterator, Mapping, Sequence

from controlplane.domain.ids import JobUid
from controlplane.domain.policy import Optimality
from controlplane.domain.record import JobRecord
from controlplane.domain.step_times import SourcedStepTimes
from controlplane.rubick.choices import Choice
from controlplane.rubick.round import Round
from controlplane.rubick.seat import Displaced, Seat, kind_of
from controlplane.rubick.seating import Promise

_OTHERS_NAMED = 2


def sentences(
    seat: Seat,
    record: JobRecord,
    dealing: Round,
    promise: Promise | None,
    optimality: Optimality,
    names: Mapping[JobUid, str],
    times: SourcedStepTimes | None,
) -> Iterator[str]:
    """The explanation, a sentence each.

    Args:
        seat: The job in the round.
        record: The job.
        dealing: The round, dealt.
        promise: What it is promised; None for nothing.
        optimality: Of the round.
        names: What jobs are called.
        times: Says what predictions follow from; None where they were measured beforehand.
    """
    given = _given(seat, record)
    if given is not None:
        yield from _why_this_plan(seat, given)
        yield from _known_from(given, record, times)
        yield from _why_not_more(seat, given, optimality)
    elif seat.given is not None:
        yield (
            f"It keeps the {seat.given.accelerators} accelerators that it has; how they lie is not "
            "among what would be chosen now."
        )
    elif len(seat.choices.every):
        yield from _why_nothing(seat, dealing, optimality)
    if promise is not None:
        yield _promised(promise, given)
    yield from _who_made_room(seat, dealing, names)
    if seat.starves_since is not None:
        yield "It stood still for longer than jobs may, so it comes before others until it runs."
    if optimality.value > 0:
        yield (
            f"The whole round is worth {_percent(1 - optimality.gap)} of the most that it could "
            "be worth, by a proven bound."
        )


def _given(seat: Seat, record: JobRecord) -> Choice | None:
    """The choice that the job has or gets."""
    if seat.given is None:
        return None
    if seat.given.choice is not None:
        return seat.given.choice
    attempt = record.attempt
    plan = attempt.placement.plan if attempt is not None else None
    shares = tuple(sorted((count for _, count in seat.given.parts), reverse=True))
    kind = kind_of(seat.given)
    for each in seat.choices.every:
        if each.shares == shares and each.plan == plan and each.kind == kind:
            return each
    return None


def _why_this_plan(seat: Seat, given: Choice) -> Iterator[str]:
    lies = "+".join(map(str, given.shares)) or str(given.accelerators)
    yield (
        f"It gets {given.plan} on {lies} {given.kind}: {_speed(given)}"
        f"{_at_least(given)}, the fastest plan that is known for accelerators that lie so."
    )
    others = [
        each
        for each in seat.choices.every
        if each.accelerators == given.accelerators and each is not given
    ]
    if others:
        told = ", ".join(
            f"{_speed(each)} on {'+'.join(map(str, each.shares))} {each.kind}"
            for each in others[:_OTHERS_NAMED]
        )
        yield f"As many accelerators elsewhere would give {told}."


def _known_from(given: Choice, record: JobRecord, times: SourcedStepTimes | None) -> Iterator[str]:
    """What the prediction follows from, and what the job says of it."""
    if times is not None:
        yield times.source(record.job.spec, given.kind)
    attempt, told = record.attempt, record.progress
    if attempt is None or attempt.plan_change is not None or told.step_seconds <= 0:
        return
    # What it told before it went over says nothing of where it is now.
    if told.at > max(record.reconfigured_at, attempt.started_at):
        yield f"It makes {1 / told.step_seconds:.3g} steps a second, as it told last."


def _why_not_more(seat: Seat, given: Choice, optimality: Optimality) -> Iterator[str]:
    more = [
        each
        for each in seat.choices.every
        if each.accelerators > given.accelerators and each.seconds < given.seconds
    ]
    if not more:
        yield "No number of accelerators that it may have would make it faster."
        return
    slope = seat.choices.curves[given.kind].slope(given.accelerators)
    if slope > 0:
        yield f"By its curve each further accelerator adds up to {slope:.3g} steps a second."
    best = max(more, key=lambda each: _worth(seat, each) - _price(each, optimality))
    sooner = seat.steps_left * (given.seconds - best.seconds)
    if seat.held is not None:
        sooner -= seat.switch_seconds
    if sooner <= 0:
        yield (
            f"{best.accelerators} accelerators would give {_speed(best)}, but it is nearly done: "
            f"going over to them would take the {_duration(seat.switch_seconds)} that it saves."
        )
        return
    price = optimality.prices.get(best.kind, 0.0)
    extra = best.accelerators - given.accelerators
    gain = (_worth(seat, best) - _worth(seat, given)) / extra
    told = (
        f"{best.accelerators} accelerators would give {_speed(best)} and end it "
        f"{_duration(sooner)} sooner"
    )
    if price > gain:
        ratio = f"{price / gain:.2g} times as much" if gain > 0 else "more"
        each = "each of the" if extra > 1 else "the"
        yield f"{told}; but {each} {extra} more is worth {ratio} to others."
    else:
        yield f"{told}; there is no room for that now without taking more from others."


def _why_nothing(seat: Seat, dealing: Round, optimality: Optimality) -> Iterator[str]:
    fastest = min(seat.choices.every, key=lambda each: each.seconds)
    least = min(seat.choices.every, key=lambda each: each.accelerators)
    if least.accelerators < fastest.accelerators:
        yield (
            f"It could run on {least.accelerators} ({_speed(least)}) to {fastest.accelerators} "
            f"accelerators ({_speed(fastest)})."
        )
    slow = dealing.could_begin(seat)
    if slow is not None:
        yield (
            f"{slow.accelerators} are free, on which it would take "
            f"{_duration(seat.steps_left * slow.seconds)} instead of "
            f"{_duration(seat.steps_left * fastest.seconds)}: waiting ends it sooner."
        )
        return
    price = optimality.prices.get(least.kind, 0.0)
    own = max((_worth(seat, each) / each.accelerators for each in seat.choices.every), default=0.0)
    if price > own > 0:
        yield (
            f"An accelerator is worth {price / own:.2g} times as much to those who run as it would "
            "be to this job: they are done sooner, or need fewer."
        )


def _promised(promise: Promise, given: Choice | None) -> str:
    if not promise.steps_per_second:
        return (
            f"It is promised {promise.accelerators} accelerators: what its steps take is not known."
        )
    told = (
        f"It is promised {promise.steps_per_second:.3g} steps a second, the speed of what it asks "
        f"for; {promise.accelerators} accelerators are enough for that"
    )
    if given is None:
        return f"{told}."
    return (
        f"{told}, and it gets {_percent(given.steps_per_second / promise.steps_per_second)} of it."
    )


def _who_made_room(seat: Seat, dealing: Round, names: Mapping[JobUid, str]) -> Iterator[str]:
    for each in dealing.displaced.values():
        if each.reclaimed and seat.uid in (each.by, each.uid):
            yield (
                f"{names[each.uid]} gives back to {names[each.by]} what its queue borrowed: "
                f"{names[each.by]} is within its own queue's quota."
            )
        elif each.by == seat.uid:
            yield f"{names[each.uid]} makes room for it, {_what_for(each)}."
        elif each.uid == seat.uid:
            yield f"It makes room for {names[each.by]}, {_what_for(each)}."


def _what_for(displaced: Displaced) -> str:
    if displaced.gained > 0:
        return "because that ends both sooner in sum"
    return "which has a right to run: by a promise, its priority, or because it starved"


def _worth(seat: Seat, choice: Choice) -> float:
    place = seat.choices.every.index(choice)
    return float(seat.worths.of_choices[place])


def _price(choice: Choice, optimality: Optimality) -> float:
    return choice.accelerators * optimality.prices.get(choice.kind, 0.0)


def _speed(choice: Choice) -> str:
    told = f"{choice.steps_per_second:.3g} steps a second"
    return f"{told} by a guess" if choice.is_guess else told


def _at_least(choice: Choice) -> str:
    if choice.seconds_upper <= choice.seconds or choice.is_guess:
        return ""
    return f" (at least {1 / choice.seconds_upper:.3g}, as sure as the model is)"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def seat_of(seats: Sequence[Seat], uid: JobUid) -> Seat | None:
    """The job's seat; None if it takes no part in the round."""
    return next((seat for seat in seats if seat.uid == uid), None)
