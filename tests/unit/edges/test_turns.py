"""Taking turns: alone at once, in a burst together, and no longer than a moment."""

import asyncio
from collections.abc import Awaitable, Callable

from controlplane.edges.grpc_server.turns import Turns

NEVER_SECONDS = 3600.0


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(limited())


async def callers(turns: Turns, count: int) -> "list[asyncio.Task[None]]":
    """So many who have asked; who may has been let in."""
    asked = [asyncio.create_task(turns.take()) for _ in range(count)]
    await settle()
    return asked


async def settle() -> None:
    """Everyone who can go on does."""
    for _ in range(5):
        await asyncio.sleep(0)


def inside(asked: "list[asyncio.Task[None]]") -> list[bool]:
    return [task.done() and not task.cancelled() for task in asked]


def test_one_after_the_other_never_waits() -> None:
    async def test() -> None:
        turns = Turns(NEVER_SECONDS)
        for _ in range(3):
            assert inside(await callers(turns, 1)) == [True]
            turns.give_back()

    run(test)


def test_who_comes_meanwhile_goes_together_when_the_first_is_done() -> None:
    async def test() -> None:
        turns = Turns(NEVER_SECONDS)
        assert inside(await callers(turns, 3)) == [True, False, False]
        later = await callers(turns, 1)
        assert inside(later) == [False]
        turns.give_back()
        await settle()
        assert inside(later) == [True]

    run(test)


def test_in_a_burst_half_of_the_last_two_groups_is_waited_for() -> None:
    async def test() -> None:
        turns = Turns(NEVER_SECONDS)
        asked = await callers(turns, 7)
        turns.give_back()
        await settle()
        assert inside(asked) == [True] * 7
        for _ in range(6):
            turns.give_back()
        # One, then six: four of them are about to come again.
        again = await callers(turns, 3)
        assert inside(again) == [False] * 3
        again += await callers(turns, 1)
        assert inside(again) == [True] * 4

    run(test)


def test_nobody_waits_for_ever_for_those_inside() -> None:
    async def test() -> None:
        turns = Turns(0.001)
        first, *others = [asyncio.create_task(turns.take()) for _ in range(3)]
        await asyncio.gather(first, *others)

    run(test)


def test_a_burst_that_ended_holds_up_one_caller_for_a_moment_and_the_next_not_at_all() -> None:
    async def test() -> None:
        turns = Turns(0.001)
        await asyncio.gather(*(turns.take() for _ in range(9)))
        for _ in range(9):
            turns.give_back()
        await turns.take()
        turns.give_back()
        assert inside(await callers(turns, 1)) == [True]

    run(test)


def test_who_goes_away_takes_no_turn_along() -> None:
    async def test() -> None:
        turns = Turns(NEVER_SECONDS)
        _, gone, let_in, stays = await callers(turns, 4)
        gone.cancel()
        await settle()
        turns.give_back()
        let_in.cancel()  # Its turn has come, but it does not know yet.
        await settle()
        assert inside([gone, let_in, stays]) == [False, False, True]
        turns.give_back()
        assert inside(await callers(turns, 2)) == [True, True]

    run(test)
