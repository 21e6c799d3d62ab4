# SPDX-License-Identifier: Apache-2.0
"""Flags and a file to the configuration, or to one error that lists everything that is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from kubeproxy_ebpf import yaml_reader
from kubeproxy_ebpf.config import keys, kube_proxy
from kubeproxy_ebpf.config.configuration import Configuration
from kubeproxy_ebpf.config.errors import ConfigurationError, Problem, suggest
from kubeproxy_ebpf.config.layers import Fault, Given, Layer, Values, flag_layer, read_layers
from kubeproxy_ebpf.config.values import show
from kubeproxy_ebpf.datapath.flow_timeouts import FlowTimeouts
from kubeproxy_ebpf.model.settings import LocalDetection, Settings

_LARGEST_FILE: Final = 1 << 20


class Notice(NamedTuple):
    """Something about the configuration that belongs into the log once it works."""

    event: str
    fields: Mapping[str, object]
    is_warning: bool = False


class Loaded(NamedTuple):
    """A configuration, and what is to be said about it."""

    configuration: Configuration
    notices: tuple[Notice, ...]


class _FileContent(NamedTuple):
    text: bytes
    layers: tuple[Layer, ...]
    faults: tuple[Fault, ...]
    notices: tuple[Notice, ...]


_NO_FILE: Final = _FileContent(b"", (), (), ())


def load_configuration(
    *,
    file: Path | None = None,
    flags: Mapping[str, object] | None = None,
    flag_keys: Iterable[keys.Key[Any]] = keys.KEYS,
    hostname: str | None = None,
) -> Loaded:
    """Read the file, lay the flags (by parameter name) over it and check all of it.

    ``hostname`` stands for the host's own name.

    Raises:
        ConfigurationError: anything is wrong; it lists all there is.
    """
    content = _read_file(file) if file is not None else _NO_FILE
    given = flag_layer(flags or {}, flag_keys)
    values, faults = read_layers((given, *(_beside_source(layer, given) for layer in content.layers)))
    faults = [*content.faults, *faults]
    if not faults:
        faults += _contradictions(values)
    if faults:
        raise ConfigurationError(_located(file, content.text, faults))
    return Loaded(_configuration(values, hostname or os.uname().nodename), content.notices)


def _read_file(file: Path) -> _FileContent:
    """Read the file's values, whichever kind of file it is."""
    text = _text_of(file)
    try:
        documents = list(yaml_reader.read_documents(text))
    except yaml_reader.YamlError as error:
        where = f"{file}:{error.line}" if error.line else str(file)
        raise ConfigurationError([Problem(where, f"it is not YAML: {error.problem}")]) from error
    document = documents[0] if documents else None
    if document is None and len(documents) <= 1:
        document = {}  # an empty file: all defaults
    if len(documents) > 1 or not isinstance(document, dict):
        found = f"{len(documents)} documents" if len(documents) > 1 else show(document)
        raise ConfigurationError([Problem(f"{file}:1", f"it holds {found}; write one mapping of keys")])
    if kube_proxy.is_kube_proxy(document):
        return _kube_proxy_content(text, document, file)
    return _own_content(text, document)


def _text_of(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            text = opened.read(_LARGEST_FILE + 1)
    except OSError as error:
        reason = f"it cannot be read ({error.strerror}); name a file that exists and may be read, or leave --config out"
        raise ConfigurationError([Problem(str(file), reason)]) from error
    if len(text) > _LARGEST_FILE:
        reason = f"it is larger than {_LARGEST_FILE} bytes; name a configuration file"
        raise ConfigurationError([Problem(str(file), reason)])
    return text


def _own_content(text: bytes, document: Mapping[str, object]) -> _FileContent:
    given: dict[str, Given] = {}
    faults: list[Fault] = []
    for name, raw in document.items():
        if name in keys.BY_NAME:
            if raw is not None:
                given[name] = Given(raw, name, (name,))
        elif name in {"apiVersion", "kind"}:
            what = f"{name}: {show(raw)} is not accepted; leave it out, or give a {kube_proxy.KIND}"
            faults.append(Fault((name,), f"{what} ({kube_proxy.API_VERSION})"))
        else:
            hint = suggest(name, keys.BY_NAME) or "; docs/operations.md lists the keys"
            faults.append(Fault((name,), f"unknown key {show(name)}{hint}"))
    return _FileContent(text, (given,), tuple(faults), ())


def _kube_proxy_content(text: bytes, document: Mapping[str, object], file: Path) -> _FileContent:
    translation = kube_proxy.translate(document)
    notices = [
        Notice(
            "kube_proxy_configuration_used",
            {"file": str(file), "mode": translation.mode, "without_effect": list(translation.without_effect)},
        )
    ]
    if translation.unknown:
        fields = {"file": str(file), "fields": list(translation.unknown)}
        notices.append(Notice("kube_proxy_configuration_fields_unknown", fields, is_warning=True))
    layers = (translation.given, translation.defaults)
    return _FileContent(text, layers, translation.faults, tuple(notices))


def _beside_source(layer: Layer, flags: Layer) -> Layer:
    """Return a layer without its source of objects if a flag names one: manifests and kubeconfig are one choice."""
    sources = {keys.MANIFESTS.name, keys.KUBECONFIG.name}
    if sources.isdisjoint(flags):
        return layer
    if keys.MANIFESTS.name in flags:
        sources.add(keys.API_SERVERS.name)
    return {name: given for name, given in layer.items() if name not in sources}


def _contradictions(values: Values) -> list[Fault]:
    """Return what single values cannot show."""
    faults: list[Fault] = []
    manifests = values.given(keys.MANIFESTS)
    for key in (keys.KUBECONFIG, keys.API_SERVERS):
        other = values.given(key)
        if manifests and other:
            what = f"{other.name}: it is given beside {manifests.name}; there is one source of objects: drop one"
            faults.append(Fault(other.path, what))
    needed: Mapping[LocalDetection, keys.Key[Any]] = {
        LocalDetection.CLUSTER_CIDR: keys.CLUSTER_CIDRS,
        LocalDetection.BRIDGE_INTERFACE: keys.BRIDGE_INTERFACE,
        LocalDetection.INTERFACE_NAME_PREFIX: keys.INTERFACE_NAME_PREFIX,
    }
    mode, given = values.get(keys.DETECT_LOCAL_MODE), values.given(keys.DETECT_LOCAL_MODE)
    lacking = needed.get(mode) if mode is not None else None
    if given and mode and lacking and not values.get(lacking):
        what = f"{given.name}: {mode.value} needs {lacking.name}; give it, or another mode"
        faults.append(Fault(given.path, what))
    return faults


def _configuration(values: Values, hostname: str) -> Configuration:
    return Configuration(
        node_name=values.get(keys.NODE_NAME) or hostname.strip().lower(),
        settings=_settings(values),
        manifests=values.get(keys.MANIFESTS),
        kubeconfig=values.get(keys.KUBECONFIG),
        api_servers=values.require(keys.API_SERVERS),
        cgroup=values.get(keys.CGROUP),
        bpffs=values.require(keys.BPFFS),
        packet_path=values.require(keys.PACKET_PATH),
        devices=values.require(keys.DEVICES),
        flow_timeouts=FlowTimeouts(
            tcp_established=values.require(keys.TCP_ESTABLISHED_TIMEOUT),
            tcp_close_wait=values.require(keys.TCP_CLOSE_WAIT_TIMEOUT),
            udp_stream=values.require(keys.UDP_STREAM_TIMEOUT),
        ),
        map_sizes=values.require(keys.MAP_SIZES),
        lock_timeout=values.require(keys.LOCK_TIMEOUT),
        audit_period=values.require(keys.AUDIT_PERIOD),
        log_level=values.require(keys.LOG_LEVEL),
        log_format=values.require(keys.LOG_FORMAT),
    )


def _settings(values: Values) -> Settings:
    cluster_cidrs = values.require(keys.CLUSTER_CIDRS)
    detection = values.get(keys.DETECT_LOCAL_MODE)
    if detection is None:
        detection = LocalDetection.CLUSTER_CIDR if cluster_cidrs else LocalDetection.NONE
    default = Settings()
    return Settings(
        node_port_addresses=values.require(keys.NODE_PORT_ADDRESSES) or default.node_port_addresses,
        localhost_node_ports=values.require(keys.LOCALHOST_NODE_PORTS),
        exclude_cidrs=values.require(keys.EXCLUDE_CIDRS),
        service_cidrs=values.require(keys.SERVICE_CIDRS),
        masquerade_all=values.require(keys.MASQUERADE_ALL),
        local_detection=detection,
        cluster_cidrs=cluster_cidrs,
        bridge_interface=values.require(keys.BRIDGE_INTERFACE),
        interface_name_prefix=values.require(keys.INTERFACE_NAME_PREFIX),
        bind_address=values.get(keys.BIND_ADDRESS),
    )


def _located(file: Path | None, text: bytes, faults: Sequence[Fault]) -> list[Problem]:
    """Give each fault its place, and sort by it."""
    paths = [(0, *fault.path) for fault in faults if fault.path is not None]
    lines = yaml_reader.find_lines(text, paths)
    placed: list[tuple[int, Problem]] = []
    for fault in faults:
        if fault.path is None:
            placed.append((0, Problem("command line", fault.what)))
        else:
            line = lines.get((0, *fault.path), 1)
            placed.append((line, Problem(f"{file}:{line}", fault.what)))
    return [problem for _, problem in sorted(placed, key=lambda entry: entry[0])]
