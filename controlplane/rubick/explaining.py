"""Why a job gets what it gets, in sentences with numbers: what people read in `headrace explain`.

The round is dealt again for the snapshot as it is, which is what the next cycle would do.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlplane.domain.ids import JobUid
from controlplane.domain.policy import Optimality
from controlplane.domain.record import JobRecord
from controlplane.domain.step_times import SourcedStepTimes, Way
from controlplane.rubick.choices import Choice
from controlplane.rubick.round import Round
from controlplane.rubick.seat import Displaced, Given, Seat, kind_of
from controlplane.rubick.seating import Promise
from controlplane.rubick.settings import RubickSettings
from headrace.api.counted import counted

_OTHERS_NAMED = 2
_FIRST_NAMED = 4
_NEARLY_ALL = 0.995


@dataclass(frozen=True, slots=True)
class Background:
    """What an explanation needs beside the round.

    Attributes:
        promise: What the job is promised; None for nothing.
        optimality: Of the round.
        names: What jobs are called.
        settings: The knobs by which it was decided.
        held: What is known of what the job has; None if it has nothing, or nobody can say.
        times: Says what predictions follow from; None where they were measured beforehand.
    """

    promise: Promise | None
    optimality: Optimality
    names: Mapping[JobUid, str]
    settings: RubickSettings
    held: Way | None = None
    times: SourcedStepTimes | None = None


def sentences(seat: Seat, record: JobRecord, dealing: Round, behind: Background) -> Iterator[str]:
    """The explanation, a sentence each.

    Args:
        seat: The job in the round.
        record: The job.
        dealing: The round, dealt.
        behind: What else there is to know.
    """
    optimality, given = behind.optimality, _given(seat, record)
    if given is not None:
        yield from _why_this_plan(seat, given)
        yield from _known_from(given.kind, record, behind.times)
        yield from _why_not_more(seat, given, behind)
    elif seat.given is not None:
        yield from _why_it_keeps(seat, seat.given, record, behind)
    elif len(seat.choices.every):
        yield from _why_nothing(seat, dealing, optimality)
        yield from _who_comes_first(seat, dealing, behind.names)
        yield from _whose_peace_it_waits_out(seat, dealing, behind)
    if behind.promise is not None:
        kept = behind.held if seat.given is seat.held else None
        speed = given.steps_per_second if given is not None else None
        if speed is None and kept is not None:
            speed = kept.steps_per_second
        yield _promised(behind.promise, speed)
    yield from _who_made_room(seat, dealing, behind.names)
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


def _why_it_keeps(seat: Seat, given: Given, record: JobRecord, behind: Background) -> Iterator[str]:
    """Of what it has and would not be given today: something better is known meanwhile."""
    kind, held = kind_of(given), behind.held
    if held is None:
        yield f"It keeps the {counted(given.accelerators, 'accelerator')} that it has."
        return
    lies = "+".join(map(str, held.shares))
    yield f"It keeps {held.plan} on {lies} {kind}: {held.steps_per_second:.3g} steps a second."
    yield from _known_from(kind, record, behind.times)
    faster = [
        each
        for each in seat.choices.every
        if each.accelerators <= given.accelerators and each.seconds < held.seconds
    ]
    if not faster:
        return
    best = min(faster, key=lambda each: each.seconds)
    told = f"{best.plan} on {'+'.join(map(str, best.shares))} {best.kind} would give {_speed(best)}"
    if seat.stays:
        yield f"{told}; {_in_peace(seat, behind.settings)}."
        return
    saved = seat.steps_left * (held.seconds - best.seconds) - seat.seconds_to(best)
    share = max(0.0, saved) / seat.held_seconds_left
    least = seat.least_gain(behind.settings.least_gain)
    if share < least or not share:
        rule = "what is only tried is given up for any gain"
        if not seat.tries:
            rule = f"a job is changed from {_percent(least)} on"
        yield (
            f"{told}; with the switch that would save {_percent(share)} of the time that it still "
            f"needs, and {rule}."
        )
    else:
        yield f"{told}; there is no room for that now."


def _in_peace(seat: Seat, settings: RubickSettings) -> str:
    if seat.tries:
        return "but it tries what it has, and stays until that was learnt from"
    return (
        "but it was started or changed just now, and is left in peace for "
        f"{_duration(settings.cool_down_seconds)}"
    )


def _known_from(kind: str, record: JobRecord, times: SourcedStepTimes | None) -> Iterator[str]:
    """What the prediction follows from, and what the job says of it."""
    if times is not None:
        yield times.source(record.job.spec, kind)
    attempt, told = record.attempt, record.progress
    if attempt is None or attempt.plan_change is not None or told.step_seconds <= 0:
        return
    # What it told before it went over says nothing of where it is now.
    if told.at > max(record.reconfigured_at, attempt.started_at):
        yield f"It makes {1 / told.step_seconds:.3g} steps a second, as it told last."


def _why_not_more(seat: Seat, given: Choice, behind: Background) -> Iterator[str]:
    optimality = behind.optimality
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
        sooner -= seat.seconds_to(best)
    if sooner <= 0:
        yield (
            f"{counted(best.accelerators, 'accelerator')} would give {_speed(best)}, but it is "
            "nearly done: "
            f"going over to them would take the {_duration(seat.seconds_to(best))} that it saves."
        )
        return
    if seat.stays and seat.held is not None:
        yield (
            f"{counted(best.accelerators, 'accelerator')} would give {_speed(best)}; "
            f"{_in_peace(seat, behind.settings)}."
        )
        return
    price = optimality.prices.get(best.kind, 0.0)
    extra = best.accelerators - given.accelerators
    gain = (_worth(seat, best) - _worth(seat, given)) / extra
    told = (
        f"{counted(best.accelerators, 'accelerator')} would give {_speed(best)} and end it "
        f"{_duration(sooner)} sooner"
    )
    if price > gain:
        ratio = f"{price / gain:.2g} times as much" if gain > 0 else "more"
        yield f"{told}; but to others an accelerator is worth {ratio}."
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
            f"{slow.accelerators} {_are(slow.accelerators)} free, on which it would take "
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


def _who_comes_first(seat: Seat, dealing: Round, names: Mapping[JobUid, str]) -> Iterator[str]:
    """Those that hold something and are not put off for this job, whatever it would gain."""
    first = []
    for each in dealing.seats:
        if each.given is None or each.number == seat.number or each.rank >= seat.rank:
            continue
        whys = []
        if each.rank[0] < seat.rank[0]:
            whys.append(f"of priority {-each.rank[0]:.0f}")
        if each.promised:
            whys.append("guaranteed")
        first.append(f"{names[each.uid]} ({' and '.join(whys)})")
    if first:
        more = f" and {len(first) - _FIRST_NAMED} more" if len(first) > _FIRST_NAMED else ""
        are = "are" if len(first) > 1 else "is"
        told = ", ".join(first[:_FIRST_NAMED])
        yield f"Before it {are} served, and not put off for it: {told}{more}."


def _whose_peace_it_waits_out(seat: Seat, dealing: Round, behind: Background) -> Iterator[str]:
    """Those that would make room for a job that comes before them, but not yet."""
    if not seat.promised and seat.starves_since is None:
        return
    kinds = {each.kind for each in seat.choices.every}
    found = [
        f"{behind.names[each.uid]} ({each.given.accelerators})"
        for each in dealing.seats
        if each.given is not None
        and each.given is each.held
        and each.stays
        and each.rank > seat.rank
        and not each.promised
        and kind_of(each.given) in kinds
    ]
    if found:
        more = f" and {len(found) - _FIRST_NAMED} more" if len(found) > _FIRST_NAMED else ""
        verb = "was" if len(found) == 1 else "were"
        yield (
            f"It comes before {', '.join(found[:_FIRST_NAMED])}{more}, which {verb} started or "
            "changed just now: what was is left in peace for "
            f"{_duration(behind.settings.cool_down_seconds)}, and can make room then."
        )


def _promised(promise: Promise, steps_per_second: float | None) -> str:
    enough = counted(promise.accelerators, "accelerator")
    if not promise.steps_per_second:
        return f"It is promised {enough}: what its steps take is not known."
    told = (
        f"It is promised {promise.steps_per_second:.3g} steps a second, the speed of what it asks "
        f"for; {enough} {_are(promise.accelerators)} enough for that"
    )
    if steps_per_second is None:
        return f"{told}."
    share = steps_per_second / promise.steps_per_second
    since = "" if share > _NEARLY_ALL else ": more is known of its plans now than when it started"
    return f"{told}, and it gets {_percent(share)} of it{since}."


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


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


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
