# SPDX-License-Identifier: Apache-2.0
"""Why a Service cannot be laid out. It keeps what it had, and nothing else is disturbed."""

from __future__ import annotations

from kubeproxy_ebpf.model.objects import ObjectName


class LayoutError(Exception):
    """The base of what is wrong with one Service."""

    def __init__(self, service: ObjectName, map_name: str, message: str) -> None:
        """Name the Service and the map."""
        super().__init__(message)
        self.service = service
        self.map_name = map_name


class CapacityError(LayoutError):
    """A Service does not fit into a map."""

    def __init__(self, service: ObjectName, map_name: str, capacity: int, *, transient: bool) -> None:
        """Say the remedy; ``transient``: none is needed, there will be room after a grace period."""
        remedy = (
            "it is tried again once what went out of use is free"
            if transient
            else f"set mapSizes.{map_name} to more and restart the agent"
        )
        message = f"Service {service} cannot be served: map {map_name} is full ({capacity} entries); {remedy}"
        super().__init__(service, map_name, message)
        self.capacity = capacity
        self.transient = transient


class UnnamableServiceError(LayoutError):
    """A Service has a name that the map of names has no room for."""
