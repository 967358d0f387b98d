"""Who waits for a turn gets one, in order; who fails is tried again ever later."""

import asyncio

from operators.runtime.turns import Turns
from operators.runtime.work_queue import WorkQueue


def test_who_could_have_had_a_turn_first_has_it_first() -> None:
    async def test() -> list[str]:
        turns: Turns[str] = Turns(1000, lambda: 50.0)
        given: list[str] = []
        for key, not_before in (("late", 40.0), ("early", 10.0), ("left", 5.0), ("early", 0.0)):
            turns.want(key, not_before)
        turns.leave("left")
        done = asyncio.Event()

        def turn(key: str) -> None:
            given.append(key)
            if len(given) == 2:
                done.set()

        running = asyncio.create_task(turns.run(turn))
        await done.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return given

    assert asyncio.run(test()) == ["early", "late"]


def test_a_key_is_looked_at_once_at_a_time_and_again_if_it_changed_meanwhile() -> None:
    async def test() -> tuple[int, int]:
        queue: WorkQueue[str] = WorkQueue()
        looks = together = most = 0
        done = asyncio.Event()

        async def look(key: str) -> None:
            nonlocal looks, together, most
            looks += 1
            together += 1
            most = max(most, together)
            if looks == 1:
                queue.add(key)
                queue.add(key)
            else:
                done.set()
            await asyncio.sleep(0)
            together -= 1

        queue.add("a")
        queue.add("a")
        running = asyncio.create_task(queue.run(look, 4))
        await done.wait()
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return looks, most

    assert asyncio.run(test()) == (2, 1)


def test_failures_wait_longer_each_time_and_a_success_forgets_them() -> None:
    async def test() -> list[float]:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue()
        waits = []
        for _ in range(3):
            queue.retry("a")
            timer = queue._timers.pop("a")
            waits.append(round(timer.when() - loop.time(), 1))
            timer.cancel()
        queue.succeeded("a")
        queue.retry("a")
        waits.append(round(queue._timers["a"].when() - loop.time(), 1))
        queue.close()
        return waits

    assert asyncio.run(test()) == [0.1, 0.2, 0.4, 0.1]
