# SPDX-License-Identifier: Apache-2.0
"""Succeeds if somebody accepts at each of some ends from where it is run: `probe.py ADDRESS:PORT...`."""

from __future__ import annotations

import socket
import sys
from contextlib import closing


def answers(end: str) -> bool:
    """Whether it leads to anybody."""
    address, _, port = end.rpartition(":")
    try:
        with closing(socket.create_connection((address, int(port)), timeout=1)):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not all(map(answers, sys.argv[1:])))
