# SPDX-License-Identifier: Apache-2.0
"""The checked configuration, as the agent uses it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from kubeproxy_ebpf.datapath.flow_timeouts import FlowTimeouts
from kubeproxy_ebpf.datapath.map_sizes import MapSizes
from kubeproxy_ebpf.model.settings import Settings

PIN_FOLDER_NAME = "kubeproxy-ebpf"
"""The folder in bpffs that holds our pinned maps and links."""


class LogLevel(enum.Enum):
    """The least severe events that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.Enum):
    """How log lines look."""

    AUTO = "auto"
    """For people if standard error is a terminal, else JSON."""
    CONSOLE = "console"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All that an operator decides. Times are in seconds."""

    node_name: str
    settings: Settings = field(default_factory=Settings)
    manifests: Path | None = None
    """Folder of manifests; at most one of this and ``kubeconfig`` is given, and neither in a pod."""
    kubeconfig: Path | None = None
    api_servers: tuple[str, ...] = ()
    """URLs; none: the server that the kubeconfig or the pod's environment names."""
    cgroup: Path | None = None
    """None: the root of the cgroup v2 hierarchy, found in mountinfo."""
    bpffs: Path = Path("/sys/fs/bpf")
    packet_path: bool = True
    """Serve clients outside this node, too."""
    devices: tuple[str, ...] = ()
    """Patterns of network devices' names; none: those that lead to others are found out."""
    flow_timeouts: FlowTimeouts = field(default_factory=FlowTimeouts)
    map_sizes: MapSizes = field(default_factory=MapSizes)
    lock_timeout: float = 30.0
    audit_period: float = 30.0
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.AUTO

    @property
    def pin_folder(self) -> Path:
        """Where the maps and links are pinned."""
        return self.bpffs / PIN_FOLDER_NAME
