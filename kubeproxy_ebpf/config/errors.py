# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a configuration, all of it in one error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class InvalidValueError(ValueError):
    """A value that a key does not take. ``item``: which entry of a list, if it is one. Never leaves this package."""

    def __init__(self, reason: str, item: int | str | None = None) -> None:
        """Remember what is wrong, with the value as subject, and the remedy."""
        super().__init__(reason)
        self.reason = reason
        self.item = item


class InvalidItemsError(Exception):
    """What is wrong with the entries of a list or a mapping, all of it. Never leaves this package."""

    def __init__(self, errors: Sequence[InvalidValueError]) -> None:
        """Remember the errors, in the order of the entries."""
        super().__init__("; ".join(error.reason for error in errors))
        self.errors = tuple(errors)


class Problem(NamedTuple):
    """One thing that is wrong."""

    where: str
    """``file:line`` or ``command line``."""
    what: str
    """Key, value and remedy in one sentence."""

    def __str__(self) -> str:
        """Return ``where: what``."""
        return f"{self.where}: {self.what}"


class ConfigurationError(Exception):
    """The configuration cannot be used; the message lists everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Remember the problems, in the order of their lines."""
        count = len(problems)
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"the configuration has {count} error{'s' if count > 1 else ''}:{lines}")
        self.problems = tuple(problems)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean X?`` for a word that comes close to a known one, else nothing."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[close[0]]}?" if close else ""
