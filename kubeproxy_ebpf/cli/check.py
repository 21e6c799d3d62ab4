# SPDX-License-Identifier: Apache-2.0
"""``check``: whether the agent can work here, and what to do where it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from kubeproxy_ebpf.cli.flags import Load, configured
from kubeproxy_ebpf.cli.output import JsonFlag, print_json, print_table
from kubeproxy_ebpf.config import Configuration, ConfigurationError
from kubeproxy_ebpf.config.keys import KEYS

if TYPE_CHECKING:
    from kubeproxy_ebpf.datapath.features import Probe


@configured(KEYS)
def check(load: Load, *, json: JsonFlag = False) -> None:
    """Try what the agent needs; exit code 1 if something it cannot do without is missing."""
    from kubeproxy_ebpf.datapath import features  # noqa: PLC0415 - only some verbs need the kernel binding

    configuration, problem = _try_configuration(load)
    probes = [
        problem or features.Probe("configuration", ok=True, detail="valid"),
        *features.probe_all(pin_folder=configuration.pin_folder, cgroup=configuration.cgroup),
    ]
    if json:
        print_json([probe._asdict() for probe in probes])
    else:
        print_table(("check", "result", "detail", "remedy"), [_row(probe) for probe in probes])
    if any(probe.required and not probe.ok for probe in probes):
        raise typer.Exit(1)


def _try_configuration(load: Load) -> tuple[Configuration, Probe | None]:
    """Return the configuration and, if there is none, the defaults and what is wrong."""
    from kubeproxy_ebpf.datapath.features import Probe  # noqa: PLC0415 - as above

    try:
        return load().configuration, None
    except ConfigurationError as error:
        detail = "; ".join(map(str, error.problems))
        return Configuration(node_name=""), Probe("configuration", ok=False, detail=detail, remedy="mend it")


def _row(probe: Probe) -> tuple[str, str, str, str]:
    result = "ok" if probe.ok else "missing" if probe.required else "differs"
    return probe.name, result, probe.detail, probe.remedy
