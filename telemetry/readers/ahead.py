"""Work in a thread: the next items are made while the ones before are used."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")
_AHEAD = 2


def ahead(items: Iterator[T | None], most: int = _AHEAD) -> Generator[T, None, None]:
    """Runs an iterator in a thread, a few items ahead, for work that leaves Python's lock.

    Args:
        items: It may give None at any time, so that it can be stopped before its next item.
        most: Items that may wait to be used.

    Yields:
        Its items but None; what it raises is raised here. Whoever stops early closes this
        iterator, and then nothing runs any more.
    """
    made: Queue[tuple[T | None, BaseException | None]] = Queue(most)
    stopped = Event()

    def make() -> None:
        error = None
        try:
            for item in items:
                if stopped.is_set():
                    return
                if item is not None:
                    made.put((item, None))
        except BaseException as raised:
            error = raised
        made.put((None, error))

    thread = Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for room
            try:
                made.get(timeout=0.01)
            except Empty:
                continue
        thread.join()
        if isinstance(items, Generator):
            items.close()
