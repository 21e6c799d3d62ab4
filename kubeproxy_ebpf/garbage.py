# SPDX-License-Identifier: Apache-2.0
"""Keeps Python's cyclic collector out of bulks."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_bulks = 0
_was_enabled = True
_is_starting = False


@contextmanager
def collecting_later() -> Iterator[None]:
    """Keep the collector out: it would walk all that is being built, again and again, for nothing.

    Several threads may be in a bulk; the collector comes back with the end of the last one.
    """
    global _bulks, _was_enabled  # noqa: PLW0603 - the collector is the process's
    with _lock:
        if not _bulks:
            _was_enabled = gc.isenabled()
            gc.disable()
        _bulks += 1
    try:
        yield
    finally:
        with _lock:
            _bulks -= 1
            if not _bulks and _is_starting:
                gc.freeze()
            if not _bulks and _was_enabled:
                gc.enable()


def begin_start() -> None:
    """Let what bulks leave behind be spared, too, for as long as the start lasts: most of it is there to stay."""
    global _is_starting  # noqa: PLW0603 - as above
    _is_starting = True


def end_start() -> None:
    """Collect what the start has left, and spare the rest from now on."""
    global _is_starting  # noqa: PLW0603 - as above
    _is_starting = False
    gc.unfreeze()
    gc.collect()
    gc.freeze()
