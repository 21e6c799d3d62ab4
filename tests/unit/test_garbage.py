# SPDX-License-Identifier: Apache-2.0
"""The cyclic collector stays out of bulks, and loses nothing by it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from kubeproxy_ebpf.garbage import begin_start, collecting_later, end_start


class Knot:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        """Tie it."""
        self.itself = self


@pytest.fixture(autouse=True)
def _nothing_is_spared() -> Iterator[None]:
    end_start()  # of an agent in another test, which failed in its midst
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_the_collector_comes_back_with_the_end_of_the_last_bulk() -> None:
    """Two bulks that overlap, as those of two threads may."""
    with collecting_later():
        with collecting_later():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    assert not gc.get_freeze_count()


def test_what_a_start_makes_is_spared_but_not_its_garbage() -> None:
    """After a bulk nothing is left to be walked; the end of the start frees what nobody refers to all the same."""
    begin_start()
    try:
        with collecting_later():
            knot = weakref.ref(Knot())
        assert gc.get_freeze_count()
        gc.collect()
        assert knot() is not None
    finally:
        end_start()
    assert knot() is None
    assert gc.get_freeze_count()
