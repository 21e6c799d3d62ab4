# SPDX-License-Identifier: Apache-2.0
"""``run``: the agent."""

from __future__ import annotations

from kubeproxy_ebpf.cli.flags import Load, configured
from kubeproxy_ebpf.cli.launch import launch
from kubeproxy_ebpf.config.keys import KEYS


@configured(KEYS)
def run(load: Load) -> None:
    """Serve this node's Services until told to stop; what is in the kernel stays there."""
    configuration, notices = load()
    launch(configuration, notices)
