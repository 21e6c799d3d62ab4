# SPDX-License-Identifier: Apache-2.0
"""``version``: which agent this is, and on what it runs."""

from __future__ import annotations

import platform

from kubeproxy_ebpf import __version__
from kubeproxy_ebpf.cli.output import JsonFlag, print_json, print_line


def version(*, json: JsonFlag = False) -> None:
    """Print the versions of agent, Python and kernel."""
    versions = {"agent": __version__, "python": platform.python_version(), "kernel": platform.release()}
    if json:
        print_json(versions)
        return
    print_line(f"kubeproxy-ebpf {versions['agent']} (Python {versions['python']}, Linux {versions['kernel']})")
