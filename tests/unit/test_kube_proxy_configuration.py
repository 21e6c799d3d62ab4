# SPDX-License-Identifier: Apache-2.0
"""A KubeProxyConfiguration in place of our own file: what is used, what depends on the mode, what is only named."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from kubeproxy_ebpf.config import ConfigurationError, Loaded, LogFormat, load_configuration
from kubeproxy_ebpf.datapath.flow_timeouts import FlowTimeouts
from kubeproxy_ebpf.model.address import parse_address, parse_prefix
from kubeproxy_ebpf.model.settings import LocalDetection, NodePortKeyword, Settings

KUBEADM = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: MODE
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"""
HEADER = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
ALL = (NodePortKeyword.ALL,)
PRIMARY = (NodePortKeyword.PRIMARY,)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where a test's file is."""
    return tmp_path / "config.conf"


def _load(file: Path, text: str) -> Loaded:
    file.write_text(text)
    return load_configuration(file=file, hostname="host")


def _problems(file: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        _load(file, text)
    return [str(problem).replace(str(file), "F") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("mode", "means", "node_port_addresses", "localhost_node_ports"),
    [
        ('""', "iptables", ALL, True),
        ("iptables", "iptables", ALL, True),
        ("ipvs", "ipvs", ALL, False),
        ("nftables", "nftables", PRIMARY, False),
    ],
)
def test_file_of_kubeadm(
    file: Path, mode: str, means: str, node_port_addresses: tuple[NodePortKeyword, ...], localhost_node_ports: object
) -> None:
    """The file that kubeadm makes, which writes every field, gives the mode's defaults and the pods' ranges."""
    loaded = _load(file, KUBEADM.replace("MODE", mode))
    assert loaded.configuration.settings == Settings(
        node_port_addresses=node_port_addresses,
        localhost_node_ports=bool(localhost_node_ports),
        local_detection=LocalDetection.CLUSTER_CIDR,
        cluster_cidrs=(parse_prefix("10.244.0.0/16"), parse_prefix("fd00:10:244::/56")),
    )
    assert loaded.configuration.kubeconfig == Path("/var/lib/kube-proxy/kubeconfig.conf")
    assert loaded.configuration.node_name == "host"
    assert loaded.configuration.audit_period == 30
    (notice,) = loaded.notices
    assert notice.event == "kube_proxy_configuration_used"
    assert not notice.is_warning
    assert notice.fields["mode"] == means
    assert notice.fields["without_effect"] == []


FIELDS = """\
hostnameOverride: "  Node-A "
bindAddress: 192.0.2.7
clusterCIDR: 10.244.0.0/16
detectLocalMode: BridgeInterface
detectLocal: {bridgeInterface: cbr0, interfaceNamePrefix: veth}
nodePortAddresses: [192.0.2.0/24, localhost]
logging: {format: json, verbosity: 3}
iptables: {masqueradeAll: true, localhostNodePorts: false, syncPeriod: 10s}
ipvs: {excludeCIDRs: [10.9.0.0/16], syncPeriod: 20s, scheduler: lc}
nftables: {masqueradeAll: false, syncPeriod: 1m0s}
conntrack: {maxPerCore: 1}
metricsBindAddress: 127.0.0.1:10249
featureGates: {Something: true}
"""


def test_fields_that_mean_the_same(file: Path) -> None:
    """Each field that means the same in every mode is used."""
    configuration = _load(file, HEADER + "mode: nftables\n" + FIELDS).configuration
    assert configuration.node_name == "node-a"
    assert configuration.log_format is LogFormat.JSON
    settings = configuration.settings
    assert settings.bind_address == parse_address("192.0.2.7")
    assert settings.local_detection is LocalDetection.BRIDGE_INTERFACE
    assert settings.bridge_interface == "cbr0"
    assert settings.interface_name_prefix == "veth"
    assert settings.node_port_addresses == (parse_prefix("192.0.2.0/24"), NodePortKeyword.LOCALHOST)


def test_times_of_conntrack(file: Path) -> None:
    """Those of connections that are remembered here as well; zero is what it is without: the default."""
    times = "conntrack: {tcpEstablishedTimeout: 3h, tcpCloseWaitTimeout: 20m, udpStreamTimeout: 90s, udpTimeout: 40s}\n"
    loaded = _load(file, HEADER + times)
    timeouts = loaded.configuration.flow_timeouts
    assert timeouts == FlowTimeouts(tcp_established=10800.0, tcp_close_wait=1200.0, udp_stream=90.0)
    none = _load(file, HEADER + "conntrack: {tcpEstablishedTimeout: 0s, udpStreamTimeout: 0s}\n")
    assert none.configuration.flow_timeouts == FlowTimeouts()


class Sections(NamedTuple):
    """What becomes of FIELDS in a mode."""

    masquerade_all: bool
    localhost_node_ports: bool
    period: float
    excluded: list[str]
    without_effect: set[str]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (
            "iptables",
            Sections(
                masquerade_all=True,
                localhost_node_ports=False,
                period=10,
                excluded=[],
                without_effect={"ipvs.excludeCIDRs", "ipvs.syncPeriod", "nftables.syncPeriod"},
            ),
        ),
        (
            "ipvs",
            Sections(
                masquerade_all=True,
                localhost_node_ports=False,
                period=20,
                excluded=["10.9.0.0/16"],
                without_effect={"iptables.syncPeriod", "nftables.syncPeriod"},
            ),
        ),
        (
            "nftables",
            Sections(
                masquerade_all=False,
                localhost_node_ports=False,
                period=60,
                excluded=[],
                without_effect={"iptables.masqueradeAll", "iptables.syncPeriod", "ipvs.excludeCIDRs"},
            ),
        ),
    ],
)
def test_sections_of_the_mode(file: Path, mode: str, expected: Sections) -> None:
    """The active mode's own section is used; the others' fields are named as without effect."""
    configuration, (notice,) = _load(file, HEADER + f"mode: {mode}\n" + FIELDS)
    named = notice.fields["without_effect"]
    assert isinstance(named, list)
    assert expected == Sections(
        configuration.settings.masquerade_all,
        configuration.settings.localhost_node_ports,
        configuration.audit_period,
        list(map(str, configuration.settings.exclude_cidrs)),
        expected.without_effect & set(named),
    )
    always = {"ipvs.scheduler", "conntrack.maxPerCore", "metricsBindAddress", "featureGates.Something"}
    assert always <= set(named)
    assert not {"mode", "hostnameOverride", "logging.format", f"{mode}.syncPeriod"} & set(named)


@pytest.mark.parametrize("value", ["[]", "null"])
def test_empty_node_port_addresses(file: Path, value: str) -> None:
    """An empty list counts as none, so the mode decides."""
    text = HEADER + f"mode: iptables\nnodePortAddresses: {value}\n"
    assert _load(file, text).configuration.settings.node_port_addresses == ALL


def test_cluster_cidr_mode_without_cidr(file: Path) -> None:
    """As for kube-proxy, mode ClusterCIDR without a CIDR detects nothing; it is named as without effect."""
    configuration, (notice,) = _load(file, HEADER + "detectLocalMode: ClusterCIDR\n")
    assert configuration.settings.local_detection is LocalDetection.NONE
    assert notice.fields["without_effect"] == ["detectLocalMode"]


def test_flags_go_before_it(file: Path) -> None:
    """A flag goes before the file's field and before the mode's default."""
    file.write_text(HEADER + "hostnameOverride: file\nclientConnection: {kubeconfig: /k}\n")
    flags = {"node_name": "Flag", "manifests": "/m", "localhost_node_ports": False}
    configuration = load_configuration(file=file, flags=flags).configuration
    assert configuration.node_name == "flag"
    assert (configuration.manifests, configuration.kubeconfig) == (Path("/m"), None)
    assert configuration.settings.localhost_node_ports is False


def test_unknown_fields_are_a_warning(file: Path) -> None:
    """Unknown fields are pardoned, as kube-proxy does, with suggestions; free sections have none."""
    text = HEADER + "clusterCIDRs: 10.0.0.0/8\niptables: {masqueradeal: true}\nfeatureGates: {New: true}\nxyzzy: 1\n"
    notice = _load(file, text).notices[1]
    assert notice.event == "kube_proxy_configuration_fields_unknown"
    assert notice.is_warning
    assert notice.fields["fields"] == [
        "clusterCIDRs; did you mean clusterCIDR?",
        "iptables.masqueradeal; did you mean masqueradeAll?",
        "xyzzy",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1\n",
            "F:2: apiVersion: 'kubeproxy.config.k8s.io/v1' is not supported; write kubeproxy.config.k8s.io/v1alpha1",
        ),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n",
            "F:1: kind: None is not supported; write KubeProxyConfiguration",
        ),
        (HEADER + "mode: userspace\n", "F:3: mode: 'userspace' is unknown; write iptables, ipvs or nftables"),
        (HEADER + "iptables: 3\n", "F:3: iptables: 3 is not a mapping; write its fields below it, indented"),
        (
            HEADER + "iptables:\n  masqueradeAll: 'true'\n",
            "F:4: iptables.masqueradeAll: 'true' is not a boolean; write true or false",
        ),
        (
            HEADER + "iptables:\n  syncPeriod: 30\n",
            "F:4: iptables.syncPeriod: 30 is not a duration; write a number with its unit (ms, s, m, h), e.g. 30s",
        ),
        (
            HEADER + "clusterCIDR: 10.0.0.0/8,fd00\n",
            "F:3: clusterCIDR[1]: 'fd00' is not a CIDR; write e.g. 10.0.0.0/8 or fd00::/64",
        ),
        (
            HEADER + "detectLocalMode: InterfaceNamePrefix\n",
            "F:3: detectLocalMode: InterfaceNamePrefix needs interfaceNamePrefix; give it, or another mode",
        ),
    ],
)
def test_errors(file: Path, text: str, problem: str) -> None:
    """Wrong types and values are errors, under kube-proxy's names for the fields."""
    assert _problems(file, text) == [problem]
