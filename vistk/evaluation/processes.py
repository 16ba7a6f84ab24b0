"""Work spread over processes, with results as if one had done it all."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
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
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_follow_parent)
    try:
        rest = iter(items)
        waiting.extend(pool.submit(function, item) for item in islice(rest, 4 * jobs))
        while waiting:
            one = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield one
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """In a worker: an interrupt from the keyboard, which all processes get, ends it without a trace of its
    own; and a parent that is gone, killed perhaps, takes it along. Without that it would wait for work for
    ever: it holds the other end of its own queue.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = parent_process()
    assert parent is not None  # workers have one
    wait([parent.sentinel])
    os._exit(1)
