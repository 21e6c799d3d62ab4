# SPDX-License-Identifier: Apache-2.0
"""A KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1) to values of our own keys.

What means the same is used; ``mode`` decides the defaults that differ by mode; the rest is named so that it can be
said once. As kube-proxy does, unknown fields are pardoned with a warning, values of a wrong type are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from kubeproxy_ebpf.config import keys
from kubeproxy_ebpf.config.errors import suggest
from kubeproxy_ebpf.config.keys import Key
from kubeproxy_ebpf.config.layers import Fault, Given, Layer
from kubeproxy_ebpf.config.values import show

API_GROUP: Final = "kubeproxy.config.k8s.io"
API_VERSION: Final = f"{API_GROUP}/v1alpha1"
KIND: Final = "KubeProxyConfiguration"

_FREE: Final[frozenset[str]] = frozenset()
"""Sections whose fields are not ours to know."""
_SECTIONS: Final[Mapping[str, frozenset[str]]] = {
    "clientConnection": frozenset({"kubeconfig", "acceptContentTypes", "contentType", "qps", "burst"}),
    "iptables": frozenset(
        {"masqueradeBit", "masqueradeAll", "localhostNodePorts", "syncPeriod", "minSyncPeriod", "snatNodeInternalIP"}
    ),
    "nftables": frozenset({"masqueradeBit", "masqueradeAll", "syncPeriod", "minSyncPeriod"}),
    "ipvs": frozenset(
        {"syncPeriod", "minSyncPeriod", "scheduler", "excludeCIDRs", "strictARP",
         "tcpTimeout", "tcpFinTimeout", "udpTimeout"}
    ),
    "conntrack": frozenset(
        {"maxPerCore", "min", "tcpEstablishedTimeout", "tcpCloseWaitTimeout", "tcpBeLiberal",
         "udpTimeout", "udpStreamTimeout"}
    ),
    "detectLocal": frozenset({"bridgeInterface", "interfaceNamePrefix"}),
    "logging": _FREE,
    "winkernel": _FREE,
    "featureGates": _FREE,
}  # fmt: skip
_FIELDS: Final = frozenset(
    {"apiVersion", "kind", "hostnameOverride", "bindAddress", "healthzBindAddress", "metricsBindAddress",
     "bindAddressHardFail", "enableProfiling", "showHiddenMetricsForVersion", "mode", "detectLocalMode", "clusterCIDR",
     "nodePortAddresses", "oomScoreAdj", "configSyncPeriod", "portRange", "windowsRunAsService"}
) | _SECTIONS.keys()  # fmt: skip

_USED: Final[Mapping[str, Key[Any]]] = {
    "hostnameOverride": keys.NODE_NAME,
    "bindAddress": keys.BIND_ADDRESS,
    "clusterCIDR": keys.CLUSTER_CIDRS,
    "detectLocalMode": keys.DETECT_LOCAL_MODE,
    "detectLocal.bridgeInterface": keys.BRIDGE_INTERFACE,
    "detectLocal.interfaceNamePrefix": keys.INTERFACE_NAME_PREFIX,
    "nodePortAddresses": keys.NODE_PORT_ADDRESSES,
    "clientConnection.kubeconfig": keys.KUBECONFIG,
    "logging.format": keys.LOG_FORMAT,
    "conntrack.tcpEstablishedTimeout": keys.TCP_ESTABLISHED_TIMEOUT,
    "conntrack.tcpCloseWaitTimeout": keys.TCP_CLOSE_WAIT_TIMEOUT,
    "conntrack.udpStreamTimeout": keys.UDP_STREAM_TIMEOUT,
}
"""Fields that mean the same in every mode."""
_USED_BY_MODE: Final[Mapping[str, Mapping[str, Key[Any]]]] = {
    "iptables": {
        "iptables.masqueradeAll": keys.MASQUERADE_ALL,
        "iptables.localhostNodePorts": keys.LOCALHOST_NODE_PORTS,
        "iptables.syncPeriod": keys.AUDIT_PERIOD,
    },
    "ipvs": {
        "iptables.masqueradeAll": keys.MASQUERADE_ALL,  # ipvs has no field of its own for it
        "ipvs.excludeCIDRs": keys.EXCLUDE_CIDRS,
        "ipvs.syncPeriod": keys.AUDIT_PERIOD,
    },
    "nftables": {
        "nftables.masqueradeAll": keys.MASQUERADE_ALL,
        "nftables.syncPeriod": keys.AUDIT_PERIOD,
    },
}
_DEFAULTS_BY_MODE: Final[Mapping[str, Mapping[Key[Any], object]]] = {
    "iptables": {keys.NODE_PORT_ADDRESSES: ["all"], keys.LOCALHOST_NODE_PORTS: True},
    "ipvs": {keys.NODE_PORT_ADDRESSES: ["all"], keys.LOCALHOST_NODE_PORTS: False},
    "nftables": {keys.NODE_PORT_ADDRESSES: ["primary"], keys.LOCALHOST_NODE_PORTS: False},
}
_LOG_FORMATS: Final[Mapping[object, str]] = {"text": "console", "json": "json"}
_ZERO: Final[tuple[object, ...]] = (None, "", "0s", [], {})
"""What kube-proxy takes as absent, whatever the field (``0`` is told apart from ``False`` below)."""


class Translation(NamedTuple):
    """What a KubeProxyConfiguration says in our words."""

    mode: str
    given: Layer
    defaults: Layer
    """The mode's own defaults, which come after everything that was given."""
    without_effect: tuple[str, ...]
    """Fields that are set and mean nothing here."""
    unknown: tuple[str, ...]
    """Fields that kube-proxy does not know either, each with a suggestion."""
    faults: tuple[Fault, ...]


def is_kube_proxy(document: Mapping[str, object]) -> bool:
    """Whether the document says that it is meant for kube-proxy."""
    return document.get("kind") == KIND or str(document.get("apiVersion", "")).split("/")[0] == API_GROUP


def translate(document: Mapping[str, object]) -> Translation:
    """Translate a KubeProxyConfiguration. Faults are collected, never raised."""
    faults = list(_faults_of_kind(document))
    mode = document.get("mode") or "iptables"
    if not isinstance(mode, str) or mode not in _USED_BY_MODE:
        hint = suggest(mode, _USED_BY_MODE) if isinstance(mode, str) else ""
        faults.append(Fault(("mode",), f"mode: {show(mode)} is unknown; write iptables, ipvs or nftables{hint}"))
        mode = "iptables"
    used = {**_USED, **_USED_BY_MODE[mode]}
    given: dict[str, Given] = {}
    without_effect: list[str] = []
    unknown: list[str] = []
    for path, raw in _leaves(document, faults):
        name = ".".join(path)
        suggestion = _unknown(path)
        if suggestion is not None:
            unknown.append(name + suggestion)
        elif name in used:
            value = _translated(name, raw)
            if not _is_zero(value):
                given[used[name].name] = Given(value, name, path)
        elif not _says_nothing(raw) and name not in {"apiVersion", "kind", "mode"}:
            without_effect.append(name)
    if keys.CLUSTER_CIDRS.name not in given and given.get(keys.DETECT_LOCAL_MODE.name, _NOTHING).raw == "ClusterCIDR":
        without_effect.append(given.pop(keys.DETECT_LOCAL_MODE.name).name)  # kube-proxy goes on without detection
    defaults = {key.name: Given(raw, f"mode {mode}", None) for key, raw in _DEFAULTS_BY_MODE[mode].items()}
    return Translation(mode, given, defaults, tuple(without_effect), tuple(unknown), tuple(faults))


_NOTHING: Final = Given(None, "", None)


def _faults_of_kind(document: Mapping[str, object]) -> Iterator[Fault]:
    for field, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(field) != expected:
            yield Fault((field,), f"{field}: {show(document.get(field))} is not supported; write {expected}")


def _leaves(document: Mapping[str, object], faults: list[Fault]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield path and value of each field, those of sections one by one."""
    for name, raw in document.items():
        if name not in _SECTIONS:
            yield (name,), raw
        elif isinstance(raw, dict):
            for field, value in raw.items():
                yield (name, field), value
        elif raw is not None:
            faults.append(Fault((name,), f"{name}: {show(raw)} is not a mapping; write its fields below it, indented"))


def _unknown(path: tuple[str, ...]) -> str | None:
    """Return a suggestion, maybe empty, for a field that does not exist; None for one that does."""
    known = _FIELDS if len(path) == 1 else _SECTIONS[path[0]]
    if path[-1] in known or known is _FREE:
        return None
    return suggest(path[-1], known)


def _translated(name: str, raw: object) -> object:
    """Return a field's value as our key takes it; one of a wrong type as it is, for the key to refuse."""
    if not isinstance(raw, str):
        return raw
    if name == "clusterCIDR":
        return [part.strip() for part in raw.split(",") if part.strip()]
    if name == "logging.format":
        return _LOG_FORMATS.get(raw, raw)
    text = raw.strip()
    if name == "bindAddress" and text in _UNSPECIFIED:
        return None
    return text


_UNSPECIFIED: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - kube-proxy's way to say "none"; nothing is bound


def _is_zero(raw: object) -> bool:
    return raw in _ZERO or (raw == 0 and raw is not False)


def _says_nothing(raw: object) -> bool:
    """Whether a field without effect need not be named: tools write every field, with zeros."""
    if isinstance(raw, dict):
        return all(map(_says_nothing, raw.values()))
    return raw is False or raw == "0" or _is_zero(raw)
