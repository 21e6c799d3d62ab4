# SPDX-License-Identifier: Apache-2.0
"""The agent: one loop that waits for what changed and has the reconciler write it.

Everything that decides runs in this one thread. Sources are file descriptors. The only other threads wait: for grace
periods and sweeps, which block in the kernel, and for the API server.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import structlog

from kubeproxy_ebpf import __version__, sd_notify
from kubeproxy_ebpf.config.configuration import Configuration
from kubeproxy_ebpf.datapath import loader
from kubeproxy_ebpf.datapath.cgroups import find_cgroup_root
from kubeproxy_ebpf.datapath.netns_cookie import host_netns_cookie
from kubeproxy_ebpf.datapath.network import NetworkMonitor
from kubeproxy_ebpf.devices import DeviceKeeper, require_matches
from kubeproxy_ebpf.garbage import begin_start, collecting_later, end_start
from kubeproxy_ebpf.layout import restore
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap
from kubeproxy_ebpf.layout.layout import Layout
from kubeproxy_ebpf.map_schema import SettingsEntry
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.model.network import NodeNetwork
from kubeproxy_ebpf.model.objects import ObjectName
from kubeproxy_ebpf.observer import Observer
from kubeproxy_ebpf.reconciler import Reconciler, SyncResult
from kubeproxy_ebpf.source import ObjectKey, Occurrence, Source
from kubeproxy_ebpf.sources import open_source
from kubeproxy_ebpf.sweeper import Sweeper
from kubeproxy_ebpf.wakeups import GracePeriodThread, StopRequestedError, StopSignals

NETWORK_SETTLES = 0.1
"""Seconds from a change of the node's network until it is looked at."""
DEVICE_CHECK_PERIOD = 2.0
"""Seconds until it is noticed that somebody detached our programs from a device."""

_log = structlog.get_logger(__name__)


def run(configuration: Configuration) -> int:
    """Serve this node's Services until SIGTERM or SIGINT; return the exit code. What is in the kernel stays.

    Raises:
        NoSourceError: the configuration names no source.
        ManifestFolderError: the folder of manifests cannot be watched.
        KubeconfigError: it is not said how to reach the API server.
        DeviceError: no network device is one of those that the configuration names.
        DatapathError: the data plane cannot be loaded.
    """
    begin_start()
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignals())
        sd_notify.notify_status("loading")
        source = stack.enter_context(closing(open_source(configuration)))
        monitor = stack.enter_context(closing(NetworkMonitor()))
        network = monitor.read()
        if configuration.packet_path:
            require_matches(network, configuration.devices)
        datapath = stack.enter_context(
            loader.load(
                pin_folder=configuration.pin_folder,
                cgroup=configuration.cgroup or find_cgroup_root(),
                sizes=configuration.map_sizes,
                lock_timeout=configuration.lock_timeout,
                packet_objects=loader.PACKET_OBJECTS if configuration.packet_path else (),
                constants=configuration.flow_timeouts.as_constants(),
            )
        )
        if datapath.packets is not None:
            stack.enter_context(closing(Sweeper(datapath.packets.sweep)))
        grace_periods = stack.enter_context(GracePeriodThread(datapath.store.wait_for_readers))
        agent = _Agent(
            configuration,
            network,
            source=source,
            monitor=monitor,
            datapath=datapath,
            grace_periods=grace_periods,
            stop=stop,
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
        network: NodeNetwork,
        *,
        source: Source,
        monitor: NetworkMonitor,
        datapath: loader.Datapath,
        grace_periods: GracePeriodThread,
        stop: StopSignals,
    ) -> None:
        """Take over what the maps hold."""
        self._source = source
        self._monitor = monitor
        self._grace_periods = grace_periods
        self._stop = stop
        self._network = network
        self._next_look: float | None = None
        self._observer = Observer(configuration.settings, configuration.node_name, self._network.addresses)
        self._netns_cookie = host_netns_cookie()
        self._settings: SettingsEntry | None = None
        layout = Layout({name: datapath.store.capacity(name) for name in (*ArrayMap, *HashMap)})
        if datapath.restored:
            with collecting_later():
                layout.adopt(restore.find(datapath.store))
        self._reconciler = Reconciler(
            cluster=self._observer.cluster,
            layout=layout,
            store=datapath.store,
            clock=time.monotonic,
            start_grace_period=grace_periods.start,
            report=self._report,
        )
        self._devices = _device_keeper(datapath, configuration.devices)
        self._node_addresses: frozenset[Address] = frozenset()
        self._next_device_check = 0.0
        self._audit_period = configuration.audit_period
        self._next_audit = time.monotonic() + self._audit_period
        self._audit: Iterator[int] | None = None
        self._is_ready = False

    def serve(self) -> None:
        """Run until told to stop. Nothing is written before the source has said everything once."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop, selectors.EVENT_READ, None)
            selector.register(self._source, selectors.EVENT_READ, self._read_source)
            selector.register(self._monitor, selectors.EVENT_READ, self._note_network_change)
            selector.register(self._grace_periods, selectors.EVENT_READ, self._end_grace_period)
            while self._stop.received is None:
                for key, _ in selector.select(self._seconds_to_wait()):
                    if key.data is not None:
                        key.data()
                if self._source.due() == 0:
                    self._read_source()
                if self._next_look is not None and self._next_look <= time.monotonic():
                    self._look_at_network()
                if self._is_ready:
                    self._sync()
                    self._apply_settings()
                    self._keep_devices()
                    self._audit_if_due()
                elif self._source.is_listed:
                    self._become_ready()

    def _become_ready(self) -> None:
        result = self._sync()
        # Last, on a cold start: what is in a ServiceCIDR and nobody's is dropped, so everybody must be there.
        writes = result.writes + self._apply_settings()
        self._is_ready = True
        if self._next_look is not None:
            self._look_at_network()  # ready is who serves clients outside, too, also while the network changes
        self._keep_devices()
        _log.info("agent_ready", version=__version__, services=result.services, writes=writes)
        sd_notify.notify_ready(f"{result.services} services")
        end_start()

    def _seconds_to_wait(self) -> float | None:
        waits = [self._source.due()]
        if self._next_look is not None:
            waits.append(self._next_look - time.monotonic())
        if self._is_ready:
            to_audit = 0.0 if self._audit is not None else self._next_audit - time.monotonic()
            waits += [self._reconciler.seconds_to_next(), to_audit]
            if self._devices is not None and self._next_look is None:
                waits.append(self._next_device_check - time.monotonic())
        known = [wait for wait in waits if wait is not None]
        return max(0.0, min(known)) if known else None

    def _read_source(self) -> None:
        with self._stop.cutting_short():
            updates = self._source.drain()
        with collecting_later():
            self._observer.observe(updates)

    def _note_network_change(self) -> None:
        """Look soon, not now: a pod that comes or goes changes ten things one after the other."""
        self._monitor.drain()
        if self._next_look is None:
            self._next_look = time.monotonic() + NETWORK_SETTLES

    def _look_at_network(self) -> None:
        self._next_look = None
        try:
            self._network = self._monitor.read()
        except OSError as error:
            self._next_look = time.monotonic() + DEVICE_CHECK_PERIOD
            _log.error("network_not_read", error=str(error), reason="the node's addresses and devices stay as known")
            return
        self._observer.set_addresses(self._network.addresses)
        self._next_device_check = 0.0

    def _keep_devices(self) -> None:
        """Have the packet programs where they belong, and look now and then whether they still are."""
        if self._devices is None or self._next_look is not None:
            return  # what is known of the network is about to change
        node_addresses = self._observer.node_addresses()
        now = time.monotonic()
        if now < self._next_device_check and node_addresses == self._node_addresses:
            return
        self._node_addresses = node_addresses
        self._next_device_check = now + DEVICE_CHECK_PERIOD
        self._devices.look(self._network, node_addresses)

    def _end_grace_period(self) -> None:
        self._grace_periods.finish()
        self._reconciler.readers_are_gone()

    def _sync(self) -> SyncResult:
        started = time.monotonic()
        result = self._reconciler.sync(is_complete=self._source.is_complete)
        if result.services:
            milliseconds = round((time.monotonic() - started) * 1000, 2)
            _log.debug("services_synced", services=result.services, writes=result.writes, milliseconds=milliseconds)
        return result

    def _audit_if_due(self) -> None:
        """Begin an audit when it is time, or go on with the one that is under way."""
        now = time.monotonic()
        if self._audit is None and now >= self._next_audit:
            self._audit = self._reconciler.audit_parts()
            self._next_audit = now + self._audit_period
        if self._audit is not None and next(self._audit, None) is None:
            self._audit = None

    def _apply_settings(self) -> int:
        """Write the node's settings if they changed; return how many writes it took."""
        settings = self._observer.settings_entry(self._netns_cookie)
        if settings == self._settings:
            return 0
        self._settings = settings
        return self._reconciler.apply_settings(settings)

    def _report(self, service: ObjectName, reason: str, note: str) -> None:
        """Tell whoever listens at the source's other end what is wrong with a Service."""
        known = self._observer.cluster.service(service)
        key = ObjectKey("Service", service)
        self._source.report(Occurrence(key, reason, note, action="SyncService", uid=known.uid if known else ""))


def _device_keeper(datapath: loader.Datapath, patterns: tuple[str, ...]) -> DeviceKeeper | None:
    return DeviceKeeper(datapath.packets.attachments(), patterns) if datapath.packets is not None else None
