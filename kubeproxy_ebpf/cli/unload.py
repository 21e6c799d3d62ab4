# SPDX-License-Identifier: Apache-2.0
"""``unload``: take everything out of the kernel again."""

from __future__ import annotations

from kubeproxy_ebpf.cli.flags import Load, configured
from kubeproxy_ebpf.cli.output import print_line
from kubeproxy_ebpf.config import LogFormat, LogLevel
from kubeproxy_ebpf.config.keys import BPFFS, LOCK_TIMEOUT


@configured((BPFFS, LOCK_TIMEOUT))
def unload(load: Load) -> None:
    """Detach the programs and remove the maps. Refused while an agent runs."""
    from kubeproxy_ebpf.cli.log_output import configure_logging  # noqa: PLC0415 - only for some verbs
    from kubeproxy_ebpf.datapath import loader  # noqa: PLC0415 - only some verbs need the kernel binding

    configuration = load().configuration
    configure_logging(LogLevel.INFO, LogFormat.AUTO)  # to standard error: it may have to wait for an agent's end
    folder = configuration.pin_folder
    removed = loader.unload(folder, lock_timeout=configuration.lock_timeout)
    print_line(f"removed what was in {folder}" if removed else f"nothing to remove in {folder}")
