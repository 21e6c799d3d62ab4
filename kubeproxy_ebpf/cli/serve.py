# SPDX-License-Identifier: Apache-2.0
"""The agent's program, which :mod:`kubeproxy_ebpf.cli.launch` starts. It imports as little as it can."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Sequence

from kubeproxy_ebpf.lean_import import as_if_absent

with as_if_absent("rich"):  # for the tracebacks of people at a desk: 7 MB
    import structlog  # noqa: F401 - for its import

from kubeproxy_ebpf import agent
from kubeproxy_ebpf.cli.log_output import configure_logging, log_notices
from kubeproxy_ebpf.cli.reporting import errors_as_messages
from kubeproxy_ebpf.config import Configuration, Notice


def serve(configuration: Configuration, notices: Sequence[Notice]) -> int:
    """Run the agent; return the exit code."""
    configure_logging(configuration.log_level, configuration.log_format)
    log_notices(notices)
    with errors_as_messages():
        return agent.run(configuration)


def main(descriptor: int) -> None:
    """Run the agent with what is in a file, and leave at once: a thread that still waits for a server is of no use."""
    with open(descriptor, "rb") as file:
        configuration, notices = pickle.load(file)  # noqa: S301 - written by this process a moment ago
    code = serve(configuration, notices)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]))
