# SPDX-License-Identifier: Apache-2.0
"""Somebody who accepts and answers connections, as every endpoint of a namespace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bench import world
from bench.plan import Plan

MOST = 256
"""More connections than a measure has at a time."""


def threads() -> int:
    """Return how many a load and who answers it have each, so that no processor waits for a wake-up."""
    return 4 * (os.cpu_count() or 1)


@contextmanager
def answering(plan: Plan, namespace: str, most: int | None = None) -> Iterator[None]:
    """Let every endpoint in a namespace answer, until the block ends: ``most`` connections at a time."""
    command = [str(plan.loads.answer), str(world.PORT), str(most or threads())]
    with world.daemon(world.inside(namespace, *command)):
        yield
