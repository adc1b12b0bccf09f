"""Processes that begin again find each other, and nothing of those before them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore, Store

from opframe.run.lives import of_this_life


def live(store: Store, ranks: Sequence[int], count: int = 3, timeout: float = 20.0) -> list[Store]:
    """The stores that processes get, who come in this order."""
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda rank: of_this_life(store, rank, count, timeout), ranks))


def test_processes_of_one_life_have_one_store_and_those_of_the_next_another() -> None:
    store = HashStore()
    for number in range(4):
        found = live(store, [(number + place) % 3 for place in range(3)])
        assert not any(each.check(["said"]) for each in found)
        found[number % 3].set("said", str(number))
        assert [each.get("said") for each in found] == [str(number).encode()] * 3


def test_a_life_in_which_a_process_ended_early_spoils_none_after_it() -> None:
    store = HashStore()
    live(store, [0, 1, 2])
    with pytest.raises(TimeoutError, match=r"of 3 processes these have not come within trainer.timeout: 2$"):
        live(store, [0, 1], timeout=0.5)
    with pytest.raises(TimeoutError, match="process 1 has waited for the first one in vain"):
        live(store, [1, 2], timeout=0.5)
    found = live(store, [2, 1, 0])
    found[0].set("said", "again")
    assert [each.get("said") for each in found] == [b"again"] * 3
