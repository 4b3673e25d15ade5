"""Requests that come at the same time are answered together: what waits while one batch is computed is the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

Texts = Sequence[tuple[str, Any]]
Answers = Sequence[Any]


class BusyError(Exception):
    """So much waits already that more would only wait longer."""


class EndedError(Exception):
    """The server ends, and takes up nothing more."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    texts: Texts
    answers: asyncio.Future[Answers]


class Batcher:
    """Gathers requests into batches for a function that answers texts in their order.

    Nobody is made to wait for company: a batch is whatever waits when the one before is done, up to a size.

    Args:
        answer: called in a thread of its own, one batch after the other.
        most_texts: of one batch; a request of more is a batch of its own.
        most_waiting: texts that may wait; requests beyond are refused at once.
        told: hears of each batch how many texts it had.
    """

    def __init__(
        self,
        answer: Callable[[Texts], Answers],
        *,
        most_texts: int,
        most_waiting: int,
        told: Callable[[int], None] = lambda texts: None,
    ) -> None:
        self._answer = answer
        self._most_texts = most_texts
        self._most_waiting = most_waiting
        self._told = told
        self._queue: deque[_Waiting] = deque()
        self._has_work = asyncio.Event()
        self._ends = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bank")
        self._task: asyncio.Task[None] | None = None
        self.waiting = 0  # texts that are not answered yet

    def start(self) -> None:
        """Begin to answer, in the loop that runs."""
        self._task = asyncio.create_task(self._work())

    async def end(self) -> None:
        """Answer what waits, and take up nothing more."""
        self._ends = True
        self._has_work.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def ask(self, texts: Texts) -> Answers:
        """The answers to some texts, in their order. Raises `BusyError`, `EndedError`, and what the function raises."""
        if self._ends:
            raise EndedError
        if self.waiting and self.waiting + len(texts) > self._most_waiting:
            raise BusyError
        waiting = _Waiting(texts, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self.waiting += len(texts)
        self._has_work.set()
        return await waiting.answers

    async def _work(self) -> None:
        while True:
            if not self._queue:
                if self._ends:
                    return
                self._has_work.clear()
                await self._has_work.wait()
                continue
            batch = self._next()
            await self._settle(batch)
            self.waiting -= sum(len(each.texts) for each in batch)

    def _next(self) -> list[_Waiting]:
        batch, size = [self._queue.popleft()], 0
        size = len(batch[0].texts)
        while self._queue and size + len(self._queue[0].texts) <= self._most_texts:
            batch.append(self._queue.popleft())
            size += len(batch[-1].texts)
        return batch

    async def _settle(self, batch: Sequence[_Waiting]) -> None:
        """Answer a batch. Where that fails, each request of it by itself: one may be what broke it."""
        batch = [each for each in batch if not each.answers.cancelled()]  # whoever asked may have gone
        if not batch:
            return
        texts = [text for each in batch for text in each.texts]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, texts)
        except Exception as error:
            if len(batch) > 1:
                for each in batch:
                    await self._settle([each])
            elif not batch[0].answers.cancelled():
                batch[0].answers.set_exception(error)
            return
        self._told(len(texts))
        first = 0
        for each in batch:
            if not each.answers.cancelled():
                each.answers.set_result(answers[first : first + len(each.texts)])
            first += len(each.texts)
