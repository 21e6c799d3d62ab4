# SPDX-License-Identifier: Apache-2.0
"""Sentences on what of an object cannot be served: each names the object and the remedy. Bounded."""

from __future__ import annotations

MOST_PROBLEMS = 10
"""Sentences kept; the others are counted only, so that a hostile object costs no memory."""


class Problems:
    """Collects sentences about one object, up to a bound."""

    def __init__(self, about: str) -> None:
        """Start without problems. ``about`` names the object."""
        self.about = about
        self._sentences: list[str] = []
        self._more = 0

    def add(self, sentence: str) -> None:
        """Add what is wrong with the object, and the remedy; the object's name goes before it."""
        if len(self._sentences) < MOST_PROBLEMS:
            self._sentences.append(f"{self.about}: {sentence}")
        else:
            self._more += 1

    def sentences(self) -> tuple[str, ...]:
        """Return the sentences; a last one counts those not kept."""
        if not self._more:
            return tuple(self._sentences)
        return (*self._sentences, f"{self.about}: {self._more} more problems like these")
