# SPDX-License-Identifier: Apache-2.0
"""How far a change has come: through the API server, the EndpointSlices, the agent and the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from demo.cluster.slices import Endpoint
from demo.processes import Repetition

_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Step:
    """A Pod that comes or goes. Times in nanoseconds of CLOCK_MONOTONIC."""

    name: str
    said: int
    """When an EndpointSlice said so."""
    in_effect: int | None
    """When the first answer of one that comes was there; when the last connection began that one that goes answered."""
    comes: bool = field(kw_only=True)

    @property
    def delay(self) -> float | None:
        """The milliseconds from the EndpointSlice to connections, if they did not come first."""
        return None if self.in_effect is None else max(0.0, (self.in_effect - self.said) / _MILLION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A change so far. Times in nanoseconds of CLOCK_MONOTONIC."""

    asked: int
    """When the request was sent."""
    acknowledged: int
    """When the API server had answered it."""
    endpoints: dict[str, Endpoint]
    """By the names of all Pods that there have been."""
    seen: Repetition
    """What connections to the Service saw that began before the change and go on."""
    syncs: Sequence[dict[str, Any]]
    """What the agent logged of it."""

    def steps(self) -> list[Step]:
        """Return the Pods that have come and gone since the request, in the order in which a slice said so."""
        first, last = self.seen.first, self.seen.last
        found = []
        for name, one in self.endpoints.items():
            if one.ready is not None and one.ready > self.asked:
                found.append(Step(name, one.ready, first.get(name), comes=True))
            if one.leaving is not None and one.leaving > self.asked:
                # Only now there can be no later one.
                found.append(Step(name, one.leaving, last.get(name) if one.gone else None, comes=False))
        return sorted(found, key=lambda step: step.said)

    @property
    def failed(self) -> int:
        """How many connections have failed."""
        return sum(self.seen.errors.values())

    @property
    def writes(self) -> int:
        """How many writes into the maps the agent has made."""
        return sum(int(sync["writes"]) for sync in self.syncs)

    @property
    def longest_sync(self) -> float:
        """Milliseconds that the agent took at most, from knowing to having written."""
        return max((float(sync["milliseconds"]) for sync in self.syncs), default=0.0)

    def is_over(self, comes: int, goes: int) -> bool:
        """Whether so many Pods came and answered, and so many went and are in no slice any more."""
        steps = self.steps()
        answered = sum(step.comes and step.in_effect is not None for step in steps)
        gone = sum(not step.comes and self.endpoints[step.name].gone is not None for step in steps)
        return answered >= comes and gone >= goes

    def milliseconds(self, moment: int) -> float:
        """Return how long after the request a moment was."""
        return (moment - self.asked) / _MILLION
