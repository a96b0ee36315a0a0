"""Make the next items while the current one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

AHEAD = 2


def read_ahead(make: Callable[[T], U], keys: Iterable[T]) -> Iterator[U]:
    """Yield what `make` returns for each key, in order; a thread makes AHEAD of them before they are asked for."""
    reader = ThreadPoolExecutor(1)
    waiting: deque[Future[U]] = deque()
    try:
        for key in keys:
            waiting.append(reader.submit(make, key))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        reader.shutdown(cancel_futures=True)
