# SPDX-License-Identifier: Apache-2.0
"""Succeeds if the first and the last of a number of Services answer from where it is run: `probe.py COUNT`."""

from __future__ import annotations

import socket
import sys
from contextlib import closing

from bench import fleet


def answers(number: int) -> bool:
    """Whether a Service leads to anybody."""
    try:
        with closing(socket.create_connection((fleet.cluster_ip(number), fleet.SERVICE_PORT), timeout=1)):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not (answers(0) and answers(int(sys.argv[1]) - 1)))
