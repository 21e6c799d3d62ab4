# SPDX-License-Identifier: Apache-2.0
"""etcd, where the API server keeps everything, in memory's speed: a crash of the machine may lose it."""

from __future__ import annotations

import base64
import http.client
import json
from pathlib import Path
from typing import Any

from tools.kubernetes.daemon import Daemon
from tools.kubernetes.namespace import connect

_HOST, _PORT, _PEER_PORT = "127.0.0.1", 2379, 2380
_READY_SECONDS = 60.0
_ANYTHING = base64.b64encode(b"\0").decode()


class Etcd:
    """An etcd of one member."""

    url = f"http://{_HOST}:{_PORT}"

    def __init__(self, programs: Path, folder: Path, namespace: Path) -> None:
        """Know where its program, its data and its namespace are."""
        self._namespace = namespace
        peer = f"http://{_HOST}:{_PEER_PORT}"
        command = (
            str(programs / "etcd"),
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        self.daemon = Daemon(namespace, command, folder / "etcd.log")

    def start(self) -> None:
        """Start it; return when it answers."""
        self.daemon.start()
        self.daemon.wait_until(self._is_healthy, "to be healthy", _READY_SECONDS)

    def compact(self) -> int:
        """Forget every state before now; return the revision of now."""
        revision = int(self._ask("/v3/kv/range", {"key": _ANYTHING})["header"]["revision"])
        self._ask("/v3/kv/compaction", {"revision": revision, "physical": True})
        return revision

    def _is_healthy(self) -> bool:
        try:
            self._ask("/v3/kv/range", {"key": _ANYTHING})
        except (OSError, http.client.HTTPException, KeyError, ValueError):
            return False
        return True

    def _ask(self, path: str, question: dict[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPConnection(_HOST, _PORT)
        connection.sock = connect(self._namespace, _HOST, _PORT, 30.0)
        try:
            connection.request("POST", path, json.dumps(question))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "header" not in answer and "error" in answer:
            msg = f"etcd refuses {path}: {answer['error']}"
            raise ValueError(msg)
        return answer
