# SPDX-License-Identifier: Apache-2.0
"""The folder of manifests that the agent watches: copied from ``demo/manifests``, then changed as a person would.

A changed file is written next to the folder and renamed into it, so that the agent never reads half a file.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).with_name("manifests")
ENDPOINTS = "web-endpoints.yaml"


class ManifestFolder:
    """A copy of the demo's manifests below ``folder``."""

    def __init__(self, folder: Path) -> None:
        """Copy the manifests."""
        self.path = folder / "manifests"
        self._draft = folder / "draft.yaml"
        shutil.copytree(MANIFESTS, self.path)

    def add_endpoint(self, ipv4: str, ipv6: str, node_name: str) -> int:
        """Add an endpoint to the slice of each family; return when, in nanoseconds of CLOCK_MONOTONIC."""
        slices = self._slices()
        for endpoint_slice, address in zip(slices, (ipv4, ipv6), strict=True):
            conditions = {"ready": True, "serving": True, "terminating": False}
            endpoint_slice["endpoints"].append(
                {"addresses": [address], "conditions": conditions, "nodeName": node_name}
            )
        return self._replace(slices)

    def remove_endpoint(self, ipv4: str, ipv6: str) -> int:
        """Take an endpoint out of the slices; return when, in nanoseconds of CLOCK_MONOTONIC."""
        slices = self._slices()
        for endpoint_slice in slices:
            endpoints = endpoint_slice["endpoints"]
            endpoint_slice["endpoints"] = [one for one in endpoints if one["addresses"][0] not in {ipv4, ipv6}]
        return self._replace(slices)

    def _slices(self) -> list[dict[str, Any]]:
        return list(yaml.safe_load_all((self.path / ENDPOINTS).read_text()))

    def _replace(self, documents: list[dict[str, Any]]) -> int:
        self._draft.write_text(yaml.safe_dump_all(documents, sort_keys=False))
        now = time.monotonic_ns()
        self._draft.rename(self.path / ENDPOINTS)
        return now
