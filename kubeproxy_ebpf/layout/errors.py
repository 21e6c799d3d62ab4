# SPDX-License-Identifier: Apache-2.0
"""What layout cannot do."""

from __future__ import annotations

from kubeproxy_ebpf.model.objects import ObjectName


class MapFullError(Exception):
    """A map has no room."""

    def __init__(self, map_name: str, capacity: int) -> None:
        """Name the map and how many entries it has."""
        super().__init__(f"map {map_name} is full ({capacity} entries)")
        self.map_name = map_name
        self.capacity = capacity


class CapacityError(Exception):
    """A Service does not fit; it keeps what it had."""

    def __init__(self, service: ObjectName, full: MapFullError) -> None:
        """Name the Service, the map and the remedy."""
        super().__init__(
            f"Service {service} cannot be served: {full}; set mapSizes.{full.map_name} to more and restart the agent"
        )
        self.service = service
        self.map_name = full.map_name
        self.capacity = full.capacity
