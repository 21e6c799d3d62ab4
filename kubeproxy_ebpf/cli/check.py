# SPDX-License-Identifier: Apache-2.0
"""``check``: whether the agent can work here, and what to do where it cannot."""

from __future__ import annotations

from collections.abc import Iterable
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
    from kubeproxy_ebpf.cli.log_output import log_warnings_only  # noqa: PLC0415 - slow to import

    log_warnings_only()
    probes = _probe(load)
    if json:
        print_json([probe._asdict() for probe in probes])
    else:
        print_table(("check", "result", "detail", "remedy"), [_row(probe) for probe in probes])
    if _lacks_something(probes):
        raise typer.Exit(1)


def _probe(load: Load) -> list[Probe]:
    """Return all findings. Connections are tried only where nothing is missing: they load programs for a moment."""
    from kubeproxy_ebpf.datapath import features, running  # noqa: PLC0415 - only some verbs need the kernel binding

    configuration, problem = _try_configuration(load)
    pin_folder, cgroup = configuration.pin_folder, configuration.cgroup
    valid = features.Probe("configuration", ok=True, detail="valid")
    probes = [problem or valid, *features.probe_all(pin_folder=pin_folder, cgroup=cgroup)]
    if _lacks_something(probes):
        detail = "connections are not tried while something is missing"
        return [*probes, features.Probe("data_plane", ok=False, detail=detail, remedy="mend the rest", required=False)]
    return [*probes, *running.probe_running(pin_folder=pin_folder, cgroup=cgroup)]


def _lacks_something(probes: Iterable[Probe]) -> bool:
    return any(probe.required and not probe.ok for probe in probes)


def _try_configuration(load: Load) -> tuple[Configuration, Probe | None]:
    """Return the configuration and, if there is none, the defaults and what is wrong."""
    from kubeproxy_ebpf.datapath.features import Probe  # noqa: PLC0415 - as above

    try:
        return load().configuration, None
    except ConfigurationError as error:
        detail = "; ".join(map(str, error.problems))
        return Configuration(node_name=""), Probe("configuration", ok=False, detail=detail, remedy="mend it")


def _row(probe: Probe) -> tuple[str, str, str, str]:
    result = "ok" if probe.ok else "failed" if probe.required else "differs"
    return probe.name, result, probe.detail, probe.remedy
