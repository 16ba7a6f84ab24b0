"""Work spread over processes, with results as if one had done it all."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def in_order(
    function: Callable[[Item], Made],
    items: Iterable[Item],
    jobs: int = 1,
    progress: Callable[[], object] | None = None,
) -> Iterator[Made]:
    """``map(function, items)`` by that many processes.

    Few items are on their way at a time, so that the processes never hold all of them. They are spawned
    and import what ``function`` needs, which takes a few seconds: for work that takes longer. However this
    process ends, they end too.

    Args:
        function: importable by name, or a ``functools.partial`` of such a function.
        jobs: 1 starts no process.
        progress: called after each item.

    Raises:
        ValueError: ``jobs`` is less than 1.
    """
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}, expected at least 1")
    made = map(function, items) if jobs == 1 else _spread(function, items, jobs)
    return made if progress is None else _noted(made, progress)


def _noted(made: Iterator[Made], progress: Callable[[], object]) -> Iterator[Made]:
    for one in made:
        progress()
        yield one


def _spread(function: Callable[[Item], Made], items: Iterable[Item], jobs: int) -> Iterator[Made]:
    waiting: deque[Future[Made]] = deque()
    context = get_context("spawn")
    end, own_end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, context, initializer=_leave_with, initargs=(end,))
    try:
        rest = iter(items)
        waiting.extend(pool.submit(function, item) for item in islice(rest, 4 * jobs))
        while waiting:
            one = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield one
    except BaseException:
        own_end.close()  # nobody wants what they are at
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        own_end.close()
        end.close()


def _leave_with(end: Connection) -> None:
    """In a worker: leave when the other end of a pipe is closed, be it because the parent is gone, killed
    perhaps. Without that it would wait for work for ever: it holds the other end of its own queue. An
    interrupt from the keyboard, which all processes get, is for the parent to say.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_and_leave, args=(end,), daemon=True).start()


def _wait_and_leave(end: Connection) -> None:
    wait([end])
    os._exit(1)
