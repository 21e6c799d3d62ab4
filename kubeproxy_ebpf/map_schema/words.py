# SPDX-License-Identifier: Apache-2.0
"""Words and numbers: eight bytes that are published in one store, in the machine's own byte order."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

WORD_SIZE: Final = 8

_U32 = Struct("=I")
_TWO_U32 = Struct("=II")
_WORD = Struct("=Q")


class Set(NamedTuple):
    """A range of slots; ``length`` 0: no endpoints."""

    base: int
    length: int

    @property
    def word(self) -> int:
        """The set as the programs read it."""
        return self.base << 32 | self.length


EMPTY_SET: Final = Set(0, 0)


def set_of(word: int) -> Set:
    """Return the set that a word says."""
    return Set(word >> 32, word & 0xFFFFFFFF) if word else EMPTY_SET


def pack_u32(value: int) -> bytes:
    """Pack an id, kind bits, or the key of an array."""
    return _U32.pack(value)


def unpack_u32(data: bytes) -> int:
    """Unpack what :func:`pack_u32` packs."""
    value: int = _U32.unpack(data)[0]
    return value


def word_of(data: bytes) -> int:
    """Return eight packed bytes as the word to publish."""
    return int.from_bytes(data, sys.byteorder)


def word_of_two(first: int, second: int) -> int:
    """Return the word that two numbers of 32 bits make, the first at the lower address."""
    return int.from_bytes(_TWO_U32.pack(first, second), sys.byteorder)


def differing_words(found: bytes | memoryview, wanted: bytes) -> Iterator[tuple[int, int]]:
    """Yield offset and wanted value of each word that differs; both have the same length, a multiple of eight."""
    if found == wanted:
        return
    pairs = zip(_WORD.iter_unpack(found), _WORD.iter_unpack(wanted), strict=True)
    for index, ((is_,), (should_be,)) in enumerate(pairs):
        if is_ != should_be:
            yield index * WORD_SIZE, should_be
