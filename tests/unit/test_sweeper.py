# SPDX-License-Identifier: Apache-2.0
"""Sweeps go on, whatever becomes of one, and end when they should."""

from __future__ import annotations

import errno
import threading
from contextlib import closing

from structlog.testing import capture_logs

from kubeproxy_ebpf.sweeper import Fill, Sweeper

PATIENCE = 30.0


def test_a_sweep_that_fails_is_said_once_and_followed_by_others() -> None:
    """Two fail, then they succeed."""
    done = threading.Event()
    outcomes = [OSError(errno.EPERM, "refused"), OSError(errno.EPERM, "refused"), None, None]

    def sweep() -> Fill:
        outcome = outcomes.pop(0) if outcomes else None
        if not outcomes:
            done.set()
        if outcome is not None:
            raise outcome
        return Fill(0, 100)

    with capture_logs() as events, closing(Sweeper(sweep, period=0.001)):
        assert done.wait(PATIENCE)
    assert [event["event"] for event in events] == ["sweep_failed"]


def test_closing_ends_the_thread_at_once() -> None:
    """It does not wait for the next sweep."""
    before = threading.active_count()
    Sweeper(lambda: Fill(0, 100), period=3600.0).close()
    assert threading.active_count() == before


def test_a_table_that_fills_up_is_said_once_each_time() -> None:
    """Once it is nearly full, and again only after there was room meanwhile."""
    done = threading.Event()
    fills = [50, 89, 90, 100, 85, 91, 79, 89, 95, 10]

    def sweep() -> Fill:
        if len(fills) == 1:
            done.set()
        return Fill(fills.pop(0) if len(fills) > 1 else fills[0], 100)

    with capture_logs() as events, closing(Sweeper(sweep, period=0.001)):
        assert done.wait(PATIENCE)
    assert [(event["event"], event["entries"]) for event in events] == [
        ("flows_nearly_full", 90),
        ("flows_nearly_full", 95),
    ]
