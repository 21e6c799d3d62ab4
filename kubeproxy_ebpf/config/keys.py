# SPDX-License-Identifier: Apache-2.0
"""Every key of the configuration, written once: file, flags, checks and the reference table come from here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from kubeproxy_ebpf.config import values
from kubeproxy_ebpf.config.configuration import Configuration, LogFormat, LogLevel
from kubeproxy_ebpf.config.values import Kind
from kubeproxy_ebpf.datapath.map_sizes import FLOW_TABLES
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.model.settings import LocalDetection, Settings

T = TypeVar("T")

MOST_CIDRS: Final = 8
"""What the programs compare one by one: MAX_CIDRS of map_types.h."""

_DEFAULTS: Final = Configuration(node_name="")
_SETTINGS: Final = Settings()
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Generic[T]):
    """One key. ``default`` is what it is when nobody gives it; None: it is worked out when it is needed."""

    name: str
    kind: Kind[T]
    default: T | None
    meaning: str
    default_text: str
    """The default, for people."""

    @property
    def flag(self) -> str:
        """The key as a flag: ``excludeCIDRs`` is ``--exclude-cidrs``."""
        return "--" + _WORD_START.sub("-", self.name).lower()

    @property
    def parameter(self) -> str:
        """The key as a Python parameter."""
        return self.flag[2:].replace("-", "_")


NODE_NAME: Final[Key[str]] = Key(
    name="nodeName",
    kind=values.NODE_NAME,
    default=None,
    default_text="the host's name",
    meaning="Name of this node's Node object; endpoints with this nodeName are local. Lower-cased.",
)
MANIFESTS: Final[Key[Path]] = Key(
    name="manifests",
    kind=values.PATH,
    default=None,
    default_text="none",
    meaning="Folder of YAML and JSON files with Services, EndpointSlices and the Node, watched; excludes kubeconfig.",
)
KUBECONFIG: Final[Key[Path]] = Key(
    name="kubeconfig",
    kind=values.PATH,
    default=None,
    default_text="none; in a pod its service account",
    meaning="File that says how to reach the API server; excludes manifests.",
)
API_SERVERS: Final[Key[tuple[str, ...]]] = Key(
    name="apiServers",
    kind=values.URLS,
    default=_DEFAULTS.api_servers,
    default_text="the one that kubeconfig or pod name",
    meaning="URLs of API servers in their place, each tried when one before it does not answer; excludes manifests.",
)
CGROUP: Final[Key[Path]] = Key(
    name="cgroup",
    kind=values.PATH,
    default=None,
    default_text="the root of cgroup v2",
    meaning="cgroup v2 folder to attach to; processes below it are served.",
)
BPFFS: Final[Key[Path]] = Key(
    name="bpffs",
    kind=values.PATH,
    default=_DEFAULTS.bpffs,
    default_text=f"`{_DEFAULTS.bpffs}`",
    meaning="Mounted bpf file system; maps and links are pinned in its folder kubeproxy-ebpf.",
)
NODE_PORT_ADDRESSES: Final = Key(
    name="nodePortAddresses",
    kind=values.NODE_PORT_ADDRESSES,
    default=_SETTINGS.node_port_addresses,
    default_text="`[primary]`",
    meaning="Node addresses that NodePorts answer on: the node's primary ones, those in a CIDR, loopback, or all.",
)
LOCALHOST_NODE_PORTS: Final = Key(
    name="localhostNodePorts",
    kind=values.BOOLEAN,
    default=_SETTINGS.localhost_node_ports,
    default_text="`false`",
    meaning="NodePorts answer on 127.0.0.0/8 too.",
)
SERVICE_CIDRS: Final = Key(
    name="serviceCIDRs",
    kind=values.prefixes(MOST_CIDRS),
    default=_SETTINGS.service_cidrs,
    default_text="`[]`",
    meaning="The cluster's ranges of ClusterIPs. Connections to addresses in them that no Service has are dropped.",
)
EXCLUDE_CIDRS: Final = Key(
    name="excludeCIDRs",
    kind=values.prefixes(MOST_CIDRS),
    default=_SETTINGS.exclude_cidrs,
    default_text="`[]`",
    meaning="Destinations that are left alone whatever Services say.",
)
MASQUERADE_ALL: Final = Key(
    name="masqueradeAll",
    kind=values.BOOLEAN,
    default=_SETTINGS.masquerade_all,
    default_text="`false`",
    meaning="Masquerade all traffic to ClusterIPs: shown by `trace`; no hook needs it.",
)
DETECT_LOCAL_MODE: Final = Key(
    name="detectLocalMode",
    kind=values.one_of(LocalDetection),
    default=None,
    default_text="`ClusterCIDR` if clusterCIDRs are given, else none",
    meaning="How a packet's source is recognised as a pod of this node.",
)
CLUSTER_CIDRS: Final = Key(
    name="clusterCIDRs",
    kind=values.prefixes(),
    default=_SETTINGS.cluster_cidrs,
    default_text="`[]`",
    meaning="The pods' ranges, for detectLocalMode ClusterCIDR; the first of each family counts.",
)
BRIDGE_INTERFACE: Final = Key(
    name="bridgeInterface",
    kind=values.INTERFACE,
    default=_SETTINGS.bridge_interface,
    default_text="none",
    meaning="The pods' bridge, for detectLocalMode BridgeInterface.",
)
INTERFACE_NAME_PREFIX: Final = Key(
    name="interfaceNamePrefix",
    kind=values.INTERFACE,
    default=_SETTINGS.interface_name_prefix,
    default_text="none",
    meaning="How the names of the pods' interfaces begin, for detectLocalMode InterfaceNamePrefix.",
)
BIND_ADDRESS: Final[Key[Address]] = Key(
    name="bindAddress",
    kind=values.ADDRESS,
    default=None,
    default_text="the Node object's",
    meaning="This node's primary address of its family, in place of the Node object's.",
)
PACKET_PATH: Final = Key(
    name="packetPath",
    kind=values.BOOLEAN,
    default=_DEFAULTS.packet_path,
    default_text="`true`",
    meaning="Serve clients outside this node, too: attach programs to the network devices that lead to others.",
)
DEVICES: Final = Key(
    name="devices",
    kind=values.INTERFACE_PATTERNS,
    default=_DEFAULTS.devices,
    default_text="those with the node's addresses, default routes, or routes to other nodes' pods",
    meaning="The network devices for packetPath, in place of what is found out.",
)
TCP_ESTABLISHED_TIMEOUT: Final = Key(
    name="tcpEstablishedTimeout",
    kind=values.period(1),
    default=_DEFAULTS.flow_timeouts.tcp_established,
    default_text="`24h`",
    meaning="How long a silent TCP connection from outside is remembered.",
)
TCP_CLOSE_WAIT_TIMEOUT: Final = Key(
    name="tcpCloseWaitTimeout",
    kind=values.period(1),
    default=_DEFAULTS.flow_timeouts.tcp_close_wait,
    default_text="`1h`",
    meaning="How long one is that one side has closed.",
)
UDP_STREAM_TIMEOUT: Final = Key(
    name="udpStreamTimeout",
    kind=values.period(1),
    default=_DEFAULTS.flow_timeouts.udp_stream,
    default_text="`2m`",
    meaning="How long datagrams from outside, and answers to them, are remembered as a connection.",
)
MAP_SIZES: Final = Key(
    name="mapSizes",
    kind=values.MAP_SIZES,
    default=_DEFAULTS.map_sizes,
    default_text=", ".join(
        f"`{name}` {'by memory' if name in FLOW_TABLES else size}"
        for name, size in _DEFAULTS.map_sizes.as_mapping().items()
    ),
    meaning="Entries of single maps (`events`: bytes); a larger size takes effect at the next start, without loss.",
)
LOCK_TIMEOUT: Final = Key(
    name="lockTimeout",
    kind=values.period(0),
    default=_DEFAULTS.lock_timeout,
    default_text="`30s`",
    meaning="How long to wait for another agent on this node to go before giving up.",
)
AUDIT_PERIOD: Final = Key(
    name="auditPeriod",
    kind=values.period(1),
    default=_DEFAULTS.audit_period,
    default_text="`30s`",
    meaning="How often the kernel's maps are compared with what they should hold, and mended.",
)
LOG_LEVEL: Final = Key(
    name="logLevel",
    kind=values.one_of(LogLevel),
    default=LogLevel.INFO,
    default_text="`info`",
    meaning="The least severe events that are logged.",
)
LOG_FORMAT: Final = Key(
    name="logFormat",
    kind=values.one_of(LogFormat),
    default=LogFormat.AUTO,
    default_text="`auto`",
    meaning="How log lines look; auto is console if standard error is a terminal, else json.",
)

KEYS: Final[tuple[Key[Any], ...]] = (
    NODE_NAME, MANIFESTS, KUBECONFIG, API_SERVERS, CGROUP, BPFFS,
    NODE_PORT_ADDRESSES, LOCALHOST_NODE_PORTS, SERVICE_CIDRS, EXCLUDE_CIDRS,
    MASQUERADE_ALL, DETECT_LOCAL_MODE, CLUSTER_CIDRS, BRIDGE_INTERFACE, INTERFACE_NAME_PREFIX, BIND_ADDRESS,
    PACKET_PATH, DEVICES, TCP_ESTABLISHED_TIMEOUT, TCP_CLOSE_WAIT_TIMEOUT, UDP_STREAM_TIMEOUT,
    MAP_SIZES, LOCK_TIMEOUT, AUDIT_PERIOD, LOG_LEVEL, LOG_FORMAT,
)  # fmt: skip
BY_NAME: Final[Mapping[str, Key[Any]]] = {key.name: key for key in KEYS}
