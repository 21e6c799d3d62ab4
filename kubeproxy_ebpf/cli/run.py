# SPDX-License-Identifier: Apache-2.0
"""``run``: the agent."""

from __future__ import annotations

import typer

from kubeproxy_ebpf.cli.flags import Load, configured
from kubeproxy_ebpf.config.keys import KEYS


@configured(KEYS)
def run(load: Load) -> None:
    """Serve this node's Services until told to stop; what is in the kernel stays there."""
    from kubeproxy_ebpf.cli.log_output import configure_logging, log_notices  # noqa: PLC0415 - only for this verb

    configuration, notices = load()
    configure_logging(configuration.log_level, configuration.log_format)
    log_notices(notices)
    from kubeproxy_ebpf import agent  # noqa: PLC0415 - heavy, and only this verb needs it

    raise typer.Exit(agent.run(configuration))
