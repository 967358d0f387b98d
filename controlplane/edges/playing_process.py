"""A process that plays states forward: what policies do takes a core for as long as it takes.

It is started when there is something to play, asked one thing at a time over its standard input,
and ended when it does not answer in time. It ends by itself when this process is gone.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence

from controlplane.domain.clock import Instant
from controlplane.domain.codec import load
from controlplane.domain.forecast import Forecasts
from controlplane.edges.forecasting import ForecastFailedError
from controlplane.edges.grpc_server.export import pieces
from controlplane.engine.state import ClusterState

COMMAND = (sys.executable, "-m", "simulator.forecasting")
BUDGET_SECONDS = 20.0
"""For so long a state is played; the first play of a large one is given up after as long."""
ANSWER_SECONDS = 90.0
"""A process that has not answered by then is ended."""
_PLAYS = 20
_ANSWER_BYTES = 64 * 1024 * 1024


class PlayingProcess:
    """The process, or none yet."""

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        *,
        budget_seconds: float = BUDGET_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """Starts nothing.

        Args:
            command: How it is started.
            budget_seconds: For how long it may play.
            answer_seconds: How long its answer is waited for.
        """
        self._command = tuple(command)
        self._budget_seconds = budget_seconds
        self._answer_seconds = answer_seconds
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        return self._process.pid if self._process is not None else None

    async def play(self, state: ClusterState, at: Instant) -> Forecasts:
        """What is predicted of the state's jobs.

        Args:
            state: What is known now.
            at: The present instant.

        Raises:
            ForecastFailedError: It could not be started, ended, did not answer in time, or says
                why it cannot.
        """
        asked = {
            "made_of": state.last_sequence,
            "at": at,
            "plays": _PLAYS,
            "budget_seconds": self._budget_seconds,
        }
        # Nothing of a manifest that may be secret is needed for it, nor leaves this process.
        stored = await asyncio.to_thread(lambda: b"".join(pieces(state)))
        try:
            async with asyncio.timeout(self._answer_seconds):
                answer = await self._answer(json.dumps(asked).encode() + b"\n" + stored + b"\n")
            told = json.loads(answer)
            if "error" in told:
                raise ForecastFailedError(told["error"])
            made: Forecasts = load(answer, Forecasts)
        except BaseException as error:
            if not isinstance(error, ForecastFailedError):
                await self.close()
            if isinstance(error, TimeoutError):
                why = f"no answer within {self._answer_seconds:g} s"
                raise ForecastFailedError(why) from error
            if isinstance(error, OSError | ValueError):
                raise ForecastFailedError(f"{type(error).__name__}: {error}") from error
            raise
        return made

    async def _answer(self, question: bytes) -> bytes:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_ANSWER_BYTES,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(question)
        await process.stdin.drain()
        answer = await process.stdout.readline()
        if not answer.endswith(b"\n"):
            code = await process.wait()
            raise OSError(f"the process that plays ended with exit code {code}")
        return answer

    async def close(self) -> None:
        """Ends the process, if there is one."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
