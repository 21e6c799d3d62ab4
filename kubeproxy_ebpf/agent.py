# SPDX-License-Identifier: Apache-2.0
"""The agent: one loop that waits for what changed and has the reconciler write it.

Everything that decides runs in this one thread. Sources are file descriptors; the only other thread waits for
grace periods, which block in the kernel.
"""

from __future__ import annotations

import gc
import selectors
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import structlog

from kubeproxy_ebpf import __version__, map_schema, sd_notify
from kubeproxy_ebpf.config.configuration import Configuration
from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.addresses import AddressMonitor, NodeAddresses
from kubeproxy_ebpf.datapath.cgroups import find_cgroup_root
from kubeproxy_ebpf.datapath.netns_cookie import host_netns_cookie
from kubeproxy_ebpf.layout import restore
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.layout.layout import Layout
from kubeproxy_ebpf.manifests import ManifestFolder, Update
from kubeproxy_ebpf.map_schema import SettingsEntry
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.model.objects import Node
from kubeproxy_ebpf.model.settings import NodeState, Settings
from kubeproxy_ebpf.plan.cluster import ClusterState
from kubeproxy_ebpf.reconciler import Reconciler, SyncResult
from kubeproxy_ebpf.wakeups import GracePeriodThread, StopRequestedError, StopSignals

_log = structlog.get_logger(__name__)


class NoSourceError(Exception):
    """Nothing says which Services there are, or an API server does, which is no source yet."""

    def __init__(self, kubeconfig: Path | None) -> None:
        """Say why the configured kubeconfig, if there is one, does not do, and the remedy."""
        what = "no source of Services"
        if kubeconfig is not None:
            what += f": kubeconfig is {kubeconfig}, but Services cannot be taken from an API server yet"
        super().__init__(f"{what}: name a folder of manifests with --manifests")


def run(configuration: Configuration) -> int:
    """Serve this node's Services until SIGTERM or SIGINT; return the exit code. What is in the kernel stays.

    Raises:
        NoSourceError: the configuration names no source that can be used.
        ManifestFolderError: the folder of manifests cannot be watched.
        DatapathError: the data plane cannot be loaded.
    """
    if configuration.manifests is None:
        raise NoSourceError(configuration.kubeconfig)
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignals())
        sd_notify.notify_status("loading")
        folder = stack.enter_context(ManifestFolder(configuration.manifests))
        monitor = stack.enter_context(AddressMonitor())
        datapath = stack.enter_context(
            loader.load(
                pin_folder=configuration.pin_folder,
                cgroup=configuration.cgroup or find_cgroup_root(),
                sizes=configuration.map_sizes,
                lock_timeout=configuration.lock_timeout,
            )
        )
        grace_periods = stack.enter_context(GracePeriodThread(datapath.store.wait_for_readers))
        agent = _Agent(
            configuration, folder=folder, monitor=monitor, datapath=datapath, grace_periods=grace_periods, stop=stop
        )
        with suppress(StopRequestedError):
            agent.serve()
        sd_notify.notify_stopping()
        _log.info("agent_stopped", signal=stop.received.name if stop.received else None)
    return 0


class _Agent:
    """The loop and what it waits for."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        folder: ManifestFolder,
        monitor: AddressMonitor,
        datapath: loader.Datapath,
        grace_periods: GracePeriodThread,
        stop: StopSignals,
    ) -> None:
        """Take over what the maps hold."""
        self._configuration = configuration
        self._folder = folder
        self._monitor = monitor
        self._grace_periods = grace_periods
        self._stop = stop
        self._addresses = monitor.read()
        self._netns_cookie = host_netns_cookie()
        self._node: Node | None = None
        self._cluster = ClusterState(configuration.settings, self._node_state())
        layout = Layout({name: datapath.store.capacity(name) for name in (*ArrayMap, *HashMap)})
        if datapath.restored:
            layout.adopt(restore.find(datapath.store))
        self._reconciler = Reconciler(
            cluster=self._cluster,
            layout=layout,
            store=datapath.store,
            clock=time.monotonic,
            start_grace_period=grace_periods.start,
        )
        self._next_audit = time.monotonic() + configuration.audit_period

    def serve(self) -> None:
        """Run until told to stop. Nothing is written before every manifest has been read."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop, selectors.EVENT_READ, None)
            selector.register(self._folder, selectors.EVENT_READ, self._read_manifests)
            selector.register(self._monitor, selectors.EVENT_READ, self._read_addresses)
            selector.register(self._grace_periods, selectors.EVENT_READ, self._end_grace_period)
            self._start()
            while self._stop.received is None:
                for key, _ in selector.select(self._seconds_to_wait()):
                    if key.data is not None:
                        key.data()
                self._read_manifests_if_due()
                self._sync()
                self._audit_if_due()

    def _start(self) -> None:
        with self._stop.cutting_short():
            updates = self._folder.read_all()
        self._observe(updates)
        result = self._sync()
        # Last, on a cold start: what is in a ServiceCIDR and nobody's is dropped, so everybody must be there.
        writes = result.writes + self._apply_settings()
        _log.info("agent_ready", version=__version__, services=result.services, writes=writes)
        sd_notify.notify_ready(f"{result.services} services")
        gc.collect()
        gc.freeze()

    def _seconds_to_wait(self) -> float:
        waits = (self._reconciler.seconds_to_next(), self._folder.due(), self._next_audit - time.monotonic())
        return max(0.0, min(wait for wait in waits if wait is not None))

    def _read_manifests(self) -> None:
        with self._stop.cutting_short():
            updates = self._folder.drain()
        self._observe(updates)

    def _read_manifests_if_due(self) -> None:
        if self._folder.due() == 0:
            self._read_manifests()

    def _observe(self, updates: list[Update]) -> None:
        for (kind, name), newest in updates:
            if kind == "Node":
                if name.name == self._configuration.node_name:
                    self._node = newest if isinstance(newest, Node) else None
                    self._cluster.set_node(self._node_state())
            elif newest is not None and not isinstance(newest, Node):
                self._cluster.observe(newest)
            elif kind == "Service":
                self._cluster.delete_service(name)
            else:
                self._cluster.delete_endpoint_slice(name)

    def _read_addresses(self) -> None:
        addresses = self._monitor.read()
        if addresses == self._addresses:
            return
        self._addresses = addresses
        _log.info("node_addresses_changed", addresses=len(addresses.interface_addresses))
        self._cluster.set_node(self._node_state())
        self._apply_settings()

    def _end_grace_period(self) -> None:
        self._grace_periods.finish()
        self._reconciler.readers_are_gone()

    def _sync(self) -> SyncResult:
        started = time.monotonic()
        result = self._reconciler.sync(is_complete=all(problem.is_partial for problem in self._folder.problems))
        if result.services:
            milliseconds = round((time.monotonic() - started) * 1000, 2)
            _log.debug("services_synced", services=result.services, writes=result.writes, milliseconds=milliseconds)
        return result

    def _audit_if_due(self) -> None:
        now = time.monotonic()
        if now >= self._next_audit:
            self._reconciler.audit()
            self._next_audit = now + self._configuration.audit_period

    def _node_state(self) -> NodeState:
        """Return this node's state. Without a Node object its primary addresses are those its sockets prefer."""
        node = self._node or Node(name=self._configuration.node_name, addresses=_sources(self._addresses))
        return NodeState(node=node, interface_addresses=self._addresses.interface_addresses)

    def _apply_settings(self) -> int:
        settings = _settings_entry(self._configuration.settings, self._addresses, self._netns_cookie)
        return self._reconciler.apply_settings(settings)


def _sources(addresses: NodeAddresses) -> tuple[Address, ...]:
    return tuple(source for source in (addresses.source_ipv4, addresses.source_ipv6) if source is not None)


def _settings_entry(settings: Settings, addresses: NodeAddresses, netns_cookie: int) -> SettingsEntry:
    return SettingsEntry(
        flags=map_schema.SETTINGS_LOCALHOST_NODE_PORTS if settings.has_localhost_node_ports else 0,
        service_cidrs=settings.service_cidrs,
        excluded_cidrs=settings.exclude_cidrs,
        host_netns_cookie=netns_cookie,
        host_source_ipv4=addresses.source_ipv4,
        host_source_ipv6=addresses.source_ipv6,
    )
