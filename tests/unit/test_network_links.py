"""Actions of several threads put together."""

from __future__ import annotations

import threading

import pytest

from podrt.network.links import Together


def in_threads(count: int, together: Together[int], failed: list[int]) -> list[threading.Thread]:
    def call(number: int) -> None:
        try:
            together([number])
        except ValueError:
            failed.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_what_waits_is_done_at_once() -> None:
    first_runs, go_on = threading.Event(), threading.Event()
    calls: list[list[int]] = []

    def action(items: list[int]) -> None:
        calls.append(items)
        if len(calls) == 1:
            first_runs.set()
            assert go_on.wait(5)

    together = Together(action)
    alone = threading.Thread(target=together, args=([-1],))
    alone.start()
    assert first_runs.wait(5)
    threads = in_threads(10, together, [])
    while len(together._waiting) < 11:
        pass
    go_on.set()
    for thread in [alone, *threads]:
        thread.join()
    assert calls[0] == [-1]
    assert len(calls) == 2
    assert sorted(calls[1]) == list(range(10))


def test_nothing_is_nothing() -> None:
    calls: list[list[int]] = []
    Together(calls.append)([])
    assert calls == []


def test_an_error_reaches_only_the_one_it_concerns() -> None:
    """Item 3 can never be done; whatever batches come about, the others are done all the same."""
    done: set[int] = set()

    def action(items: list[int]) -> None:
        if 3 in items:
            raise ValueError("three")
        done.update(items)

    failed: list[int] = []
    for thread in in_threads(8, Together(action), failed):
        thread.join()
    assert failed == [3]
    assert done == set(range(8)) - {3}


def test_the_error_of_a_lone_call() -> None:
    def action(items: list[int]) -> None:
        raise ValueError("never")

    together = Together(action)
    for _ in range(2):
        with pytest.raises(ValueError, match="never"):
            together([1])
