# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - the messages that are expected are one line each
"""The configuration: precedence, every error with its place and remedy, and the reference table."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeproxy_ebpf.config import Configuration, ConfigurationError, LogFormat, LogLevel, load_configuration
from kubeproxy_ebpf.config.keys import KEYS
from kubeproxy_ebpf.config.reference import put_keys
from kubeproxy_ebpf.datapath.flow_timeouts import FlowTimeouts
from kubeproxy_ebpf.datapath.map_sizes import MapSizes
from kubeproxy_ebpf.model.address import parse_address, parse_prefix
from kubeproxy_ebpf.model.settings import LocalDetection, NodePortKeyword, Settings

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"

COMPLETE = """\
nodeName: Node-1
manifests: /etc/manifests
cgroup: /sys/fs/cgroup/pods
bpffs: /run/bpf
nodePortAddresses: [primary, 10.0.0.0/8]
localhostNodePorts: true
serviceCIDRs: [10.96.0.0/12, "fd00:10:96::/112"]
excludeCIDRs: [169.254.0.0/16]
masqueradeAll: yes
detectLocalMode: InterfaceNamePrefix
clusterCIDRs: [10.244.0.0/16]
bridgeInterface: cbr0
interfaceNamePrefix: veth
bindAddress: 192.0.2.10
packetPath: false
devices: [eth*, "wg?"]
tcpEstablishedTimeout: 2h
tcpCloseWaitTimeout: 5m
udpStreamTimeout: 3m
mapSizes: {slots: 4096, affinity: 1024}
lockTimeout: 1m30s
auditPeriod: 1.5h
logLevel: debug
logFormat: json
"""


def _error(path: Path, text: str, flags: dict[str, object] | None = None) -> list[str]:
    """Return the problems of a file, each with the file's name cut off."""
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(file=path, flags=flags)
    assert str(caught.value).startswith(f"the configuration has {len(caught.value.problems)} error")
    return [str(problem).replace(str(path), "F") for problem in caught.value.problems]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where a test's configuration file is."""
    return tmp_path / "config.yaml"


def test_defaults() -> None:
    """Nothing given gives the documented defaults, and the host's name."""
    loaded = load_configuration(hostname="Some-Host\n")
    assert loaded.configuration == Configuration(node_name="some-host")
    assert loaded.notices == ()


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n", "{}\n", "kubeconfig:\nlogLevel: ~\n"])
def test_empty_file(file: Path, text: str) -> None:
    """A file without values gives the defaults; null is no value."""
    file.write_text(text)
    assert load_configuration(file=file, hostname="h").configuration == Configuration(node_name="h")


def test_complete_file(file: Path) -> None:
    """Every key reaches the configuration."""
    file.write_text(COMPLETE)
    assert load_configuration(file=file).configuration == Configuration(
        node_name="node-1",
        manifests=Path("/etc/manifests"),
        cgroup=Path("/sys/fs/cgroup/pods"),
        bpffs=Path("/run/bpf"),
        packet_path=False,
        devices=("eth*", "wg?"),
        flow_timeouts=FlowTimeouts(tcp_established=7200.0, tcp_close_wait=300.0, udp_stream=180.0),
        map_sizes=MapSizes(slots=4096, affinity=1024),
        lock_timeout=90.0,
        audit_period=5400.0,
        log_level=LogLevel.DEBUG,
        log_format=LogFormat.JSON,
        settings=Settings(
            node_port_addresses=(NodePortKeyword.PRIMARY, parse_prefix("10.0.0.0/8")),
            localhost_node_ports=True,
            service_cidrs=(parse_prefix("10.96.0.0/12"), parse_prefix("fd00:10:96::/112")),
            exclude_cidrs=(parse_prefix("169.254.0.0/16"),),
            masquerade_all=True,
            local_detection=LocalDetection.INTERFACE_NAME_PREFIX,
            cluster_cidrs=(parse_prefix("10.244.0.0/16"),),
            bridge_interface="cbr0",
            interface_name_prefix="veth",
            bind_address=parse_address("192.0.2.10"),
        ),
    )


def test_complete_file_is_complete() -> None:
    """The file above has every key, but for those that exclude another."""
    written = {line.partition(":")[0] for line in COMPLETE.splitlines()}
    assert written == {key.name for key in KEYS} - {"kubeconfig", "apiServers"}


def test_flags_go_before_the_file(file: Path) -> None:
    """Flag over file over default, key by key."""
    file.write_text("logLevel: debug\nauditPeriod: 10s\nmasqueradeAll: true\n")
    flags: dict[str, object] = {
        "log_level": "error",
        "masquerade_all": False,
        "exclude_cidrs": ["10.0.0.0/8,fd00::/8", " 192.0.2.0/24"],
        "map_sizes": ["slots=4096,backends=2048"],
    }
    configuration = load_configuration(file=file, flags=flags).configuration
    assert configuration.log_level is LogLevel.ERROR
    assert configuration.audit_period == 10
    assert configuration.lock_timeout == 30
    assert configuration.settings.masquerade_all is False
    assert list(map(str, configuration.settings.exclude_cidrs)) == ["10.0.0.0/8", "fd00::/8", "192.0.2.0/24"]
    assert configuration.map_sizes == MapSizes(slots=4096, backends=2048)


def test_a_flag_decides_the_source(file: Path) -> None:
    """Where objects come from is one choice: a flag for one takes the file's other away."""
    file.write_text("kubeconfig: /etc/kubeconfig\n")
    configuration = load_configuration(file=file, flags={"manifests": "/m"}).configuration
    assert (configuration.manifests, configuration.kubeconfig) == (Path("/m"), None)


def test_local_detection_follows_cluster_cidrs(file: Path) -> None:
    """With clusterCIDRs and no mode, the mode is ClusterCIDR."""
    file.write_text("clusterCIDRs: [10.244.0.0/16]\n")
    assert load_configuration(file=file).configuration.settings.local_detection is LocalDetection.CLUSTER_CIDR


ONE_BY_ONE = [
    ("logLevle: info", "F:1: unknown key 'logLevle'; did you mean logLevel?"),
    ("loglevel: info", "F:1: unknown key 'loglevel'; did you mean logLevel?"),
    ("xyzzy: 1", "F:1: unknown key 'xyzzy'; docs/operations.md lists the keys"),
    ("\n\nlogLevel: loud", "F:3: logLevel: 'loud' is unknown; write one of debug, info, warning, error"),
    ("logLevel: warn", "F:1: logLevel: 'warn' is unknown; write one of debug, info, warning, error; did you mean warning?"),
    ("logFormat: 3", "F:1: logFormat: 3 is unknown; write one of auto, console, json"),
    ("nodeName: 12", "F:1: nodeName: 12 is not text; write the Node object's name, in quotes"),
    ("nodeName: a_b", "F:1: nodeName: 'a_b' is not a node name; write the Node object's name: letters, digits, '-' and '.'"),
    ("nodeName: [a]", "F:1: nodeName: ['a'] is not text; write the Node object's name"),
    ("manifests: ''", "F:1: manifests: '' is not a path; write one, or leave the key out"),
    ("masqueradeAll: 'yes'", "F:1: masqueradeAll: 'yes' is not a boolean; write true or false"),
    ("localhostNodePorts: 1", "F:1: localhostNodePorts: 1 is not a boolean; write true or false"),
    ("auditPeriod: 30", "F:1: auditPeriod: 30 is not a duration; write a number with its unit (ms, s, m, h), e.g. 30s"),
    ("auditPeriod: 3 days", "F:1: auditPeriod: '3 days' is not a duration; write a number with its unit (ms, s, m, h), e.g. 30s or 1m30s"),
    ("auditPeriod: 1.2.3s", "F:1: auditPeriod: '1.2.3s' is not a duration; write a number with its unit (ms, s, m, h), e.g. 30s or 1m30s"),
    ("auditPeriod: 0s", "F:1: auditPeriod: '0s' is out of bounds; write a duration from 1s to 168h"),
    ("lockTimeout: 200h", "F:1: lockTimeout: '200h' is out of bounds; write a duration from 0s to 168h"),
    ("serviceCIDRs: 10.96.0.0/12", "F:1: serviceCIDRs: '10.96.0.0/12' is not a list; write a list of CIDRs (at most 8), e.g. [10.96.0.0/12]"),
    ("serviceCIDRs:\n- 10.0.0.0/8\n- 10.96.0.1", "F:3: serviceCIDRs[1]: '10.96.0.1' is not a CIDR; write e.g. 10.0.0.0/8 or fd00::/64, or 10.96.0.1/32 for this address alone"),
    ("excludeCIDRs: [fd00::1]", "F:1: excludeCIDRs[0]: 'fd00::1' is not a CIDR; write e.g. 10.0.0.0/8 or fd00::/64, or fd00::1/128 for this address alone"),
    ("excludeCIDRs: [1.0.0.0/8, 2.0.0.0/8, 3.0.0.0/8, 4.0.0.0/8, 5.0.0.0/8, 6.0.0.0/8, 7.0.0.0/8, 8.0.0.0/8, 9.0.0.0/8]", "F:1: excludeCIDRs: it has 9 entries; write at most 8"),
    ("nodePortAddresses: [primari]", "F:1: nodePortAddresses[0]: 'primari' is not a CIDR; write e.g. 10.0.0.0/8 or fd00::/64, or one of primary, localhost, all; did you mean primary?"),
    ("nodePortAddresses: [7]", "F:1: nodePortAddresses[0]: 7 is not text; write a CIDR, in quotes, or one of primary, localhost, all"),
    ("bindAddress: node-1", "F:1: bindAddress: 'node-1' is not an IP address; write e.g. 192.0.2.10 or 2001:db8::10"),
    ("bindAddress: fe80::1%eth0", "F:1: bindAddress: 'fe80::1%eth0' is not an IP address; write e.g. 192.0.2.10 or 2001:db8::10"),
    ("interfaceNamePrefix: a-name-that-is-too-long", "F:1: interfaceNamePrefix: 'a-name-that-is-too-long' is not an interface name; write 1 to 15 characters, no '/' or blanks"),
    ("mapSizes: 5", "F:1: mapSizes: 5 is not a mapping; write map names with their sizes, e.g. {slots: 524288}"),
    ("mapSizes:\n  slots: 5\n  backends: many", "F:3: mapSizes: backends: 'many' is not a number; write how many entries"),
    ("mapSizes:\n  slots: 0", "F:2: mapSizes: map slots cannot have 0 entries: choose 1 to 1073741824"),
    ("detectLocalMode: ClusterCIDR", "F:1: detectLocalMode: ClusterCIDR needs clusterCIDRs; give it, or another mode"),
    ("detectLocalMode: BridgeInterface", "F:1: detectLocalMode: BridgeInterface needs bridgeInterface; give it, or another mode"),
    ("manifests: /m\nkubeconfig: /k", "F:2: kubeconfig: it is given beside manifests; there is one source of objects: drop one"),
    ("kind: ConfigMap", "F:1: kind: 'ConfigMap' is not accepted; leave it out, or give a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1)"),
    ("logLevel: info\nlogLevel: debug", "F:2: it is not YAML: key 'logLevel' appears twice"),
    ("logLevel: info: debug", "F:1: it is not YAML: mapping values are not allowed in this context"),
    ("- logLevel", "F:1: it holds ['logLevel']; write one mapping of keys"),
    ("logLevel: info\n---\nlogLevel: info", "F:1: it holds 2 documents; write one mapping of keys"),
    ("x" * (1 << 20) + "x", "F: it is larger than 1048576 bytes; name a configuration file"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), ONE_BY_ONE, ids=[text.strip()[:40] for text, _ in ONE_BY_ONE])
def test_one_error(file: Path, text: str, problem: str) -> None:
    """Each error names key, value, line and remedy."""
    assert _error(file, text) == [problem]


def test_every_entry_is_named(file: Path) -> None:
    """All that is wrong with the entries of a list or a mapping is said at once, each with its line."""
    text = "excludeCIDRs: [here, fd00::/64, 7]\nmapSizes:\n  slots: 0\n  backends: many\n  slot: 5\n  peer_names: 3\n  events: 8192\n"
    assert [problem.partition(";")[0] for problem in _error(file, text)] == [
        "F:1: excludeCIDRs[0]: 'here' is not a CIDR",
        "F:1: excludeCIDRs[2]: 7 is not text",
        "F:3: mapSizes: map slots cannot have 0 entries: choose 1 to 1073741824",
        "F:4: mapSizes: backends: 'many' is not a number",
        "F:5: mapSizes: 'slot' is not a map with a size",
        "F:6: mapSizes: map peer_names cannot have 3 entries: choose a power of two",
    ]


def test_unknown_map(file: Path) -> None:
    """A map that does not exist is named at its line, with a suggestion."""
    (problem,) = _error(file, "mapSizes:\n  slots: 5\n  backend: 5\n")
    assert problem.startswith("F:3: mapSizes: 'backend' is not a map with a size; there are addresses, ")
    assert problem.endswith("; did you mean backends?")


def test_all_errors_at_once(file: Path) -> None:
    """Errors of file and flags come together, the file's in the order of their lines, also for overridden values."""
    text = "logLevel: loud\nnodename: a\nauditPeriod: never\n"
    assert _error(file, text, {"log_level": "info", "cluster_cidrs": ["10.0.0.0"]}) == [
        "command line: --cluster-cidrs[0]: '10.0.0.0' is not a CIDR; write e.g. 10.0.0.0/8 or fd00::/64, or 10.0.0.0/32 for this address alone",
        "F:1: logLevel: 'loud' is unknown; write one of debug, info, warning, error",
        "F:2: unknown key 'nodename'; did you mean nodeName?",
        "F:3: auditPeriod: 'never' is not a duration; write a number with its unit (ms, s, m, h), e.g. 30s or 1m30s",
    ]


def test_contradicting_flags() -> None:
    """Flags that exclude each other are named as flags."""
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(flags={"manifests": "/m", "kubeconfig": "/k"})
    assert [str(problem) for problem in caught.value.problems] == [
        "command line: --kubeconfig: it is given beside --manifests; there is one source of objects: drop one"
    ]


def test_errors_of_flags_alone() -> None:
    """Without a file the command line is the place."""
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(flags={"map_sizes": ["slots=many"]})
    assert [str(problem) for problem in caught.value.problems] == [
        "command line: --map-sizes: slots: 'many' is not a number; write how many entries"
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.yaml", "No such file or directory"), (".", "Is a directory")],
)
def test_unreadable_file(tmp_path: Path, name: str, reason: str) -> None:
    """A file that cannot be read is named, with the system's reason."""
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(file=tmp_path / name)
    assert f"{tmp_path / name}: it cannot be read ({reason}); name a file that exists" in str(caught.value)


def test_operations_has_the_table() -> None:
    """The documentation's table of keys is the one that the keys make."""
    text = OPERATIONS.read_text()
    assert text == put_keys(text), "`python -m tools.write_keys` puts it right"
