# SPDX-License-Identifier: Apache-2.0
"""Succeeds if something answers from where it is run.

usage: probe.py api URL        (an API server that says it is ready)
       probe.py services COUNT (the first and the last of a number of Services)
"""

from __future__ import annotations

import socket
import ssl
import sys
import urllib.request
from contextlib import closing

from bench import fleet


def is_ready(server: str) -> bool:
    """Whether an API server is ready. Its certificate is one that it made itself a moment ago."""
    context = ssl._create_unverified_context()  # noqa: S323, SLF001 - see above
    try:
        with urllib.request.urlopen(f"{server}/readyz", timeout=2, context=context) as response:  # noqa: S310 - https
            return bool(response.status == 200)
    except OSError:
        return False


def answers(number: int) -> bool:
    """Whether a Service leads to anybody."""
    try:
        with closing(socket.create_connection((fleet.cluster_ip(number), fleet.SERVICE_PORT), timeout=1)):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    kind, argument = sys.argv[1:]
    sys.exit(not (is_ready(argument) if kind == "api" else answers(0) and answers(int(argument) - 1)))
