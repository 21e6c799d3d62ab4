# SPDX-License-Identifier: Apache-2.0
"""Sentences on what of an object cannot be served: each names the object and the remedy. Bounded."""

from __future__ import annotations

from kubeproxy_ebpf.model.objects import ObjectName

MOST_PROBLEMS = 10
"""Sentences kept; the others are counted only, so that a hostile object costs no memory."""


class Problems:
    """Collects sentences about one object, up to a bound."""

    __slots__ = ("_kind", "_more", "_name", "_sentences")

    def __init__(self, kind: str, name: ObjectName) -> None:
        """Start without problems of this object."""
        self._kind = kind
        self._name = name
        self._sentences: list[str] = []
        self._more = 0

    def add(self, sentence: str) -> None:
        """Add what is wrong with the object, and the remedy; the object's name goes before it."""
        if len(self._sentences) < MOST_PROBLEMS:
            self._sentences.append(f"{self._kind} {self._name}: {sentence}")
        else:
            self._more += 1

    def sentences(self) -> tuple[str, ...]:
        """Return the sentences; a last one counts those not kept."""
        if not self._more:
            return tuple(self._sentences)
        return (*self._sentences, f"{self._kind} {self._name}: {self._more} more problems like these")
