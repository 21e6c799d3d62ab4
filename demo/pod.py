# SPDX-License-Identifier: Apache-2.0
"""What runs in each pod: a server that answers with its name, and a client that does what it is told.

Runs as ``python -m demo.pod NAME PORT``, in the network namespace and cgroup that its starter put it in. It reads one
JSON request per line from standard input, ``{"do": "connect", ...}``, and writes one JSON answer per line. It ends with
its standard input.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from demo.client import Attempt, Repeated, Stream, Target, ask_unconnected, connect
from demo.server import Server


@dataclass(slots=True)
class Client:
    """Carries out requests; what goes on in the background is known by a number."""

    server: Server
    background: dict[int, Repeated | Stream] = field(default_factory=dict)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request says; its further keys are arguments of the method."""
        method: Callable[..., dict[str, Any]] = getattr(self, f"do_{request.pop('do')}")
        return method(**request)

    def do_connect(self, count: int, **target: Any) -> dict[str, Any]:  # noqa: ANN401 (from JSON)
        """Make connections one after the other; return the answers, peers and errors with their counts."""
        attempts = [connect(Target(**target)) for _ in range(count)]
        return _summary(attempts)

    def do_ask_unconnected(self, **target: Any) -> dict[str, Any]:  # noqa: ANN401 (from JSON)
        """Send one datagram from an unconnected socket."""
        return _summary([ask_unconnected(Target(**target))])

    def do_repeat(self, pause: float, **target: Any) -> dict[str, Any]:  # noqa: ANN401 (from JSON)
        """Begin connections in the background."""
        return self._begin(Repeated(Target(**target), pause))

    def do_stream(self, **target: Any) -> dict[str, Any]:  # noqa: ANN401 (from JSON)
        """Begin a stream in the background."""
        return self._begin(Stream(Target(**target)))

    def _begin(self, thread: Repeated | Stream) -> dict[str, Any]:
        number = len(self.background) + 1
        self.background[number] = thread
        thread.start()
        return {"number": number}

    def do_state(self, number: int) -> dict[str, Any]:
        """Return what a background activity has seen so far."""
        return self.background[number].state()

    def do_stop(self, number: int) -> dict[str, Any]:
        """End a background activity; return all that it saw."""
        self.background[number].stop()
        return self.background[number].state()

    def do_stop_serving(self) -> dict[str, Any]:
        """Have the pod's server listen no more."""
        self.server.stop()
        return {}


def _summary(attempts: list[Attempt]) -> dict[str, Any]:
    return {
        "answers": dict(Counter(attempt.answer for attempt in attempts if not attempt.error)),
        "peers": dict(Counter(attempt.peer for attempt in attempts if not attempt.error)),
        "errors": dict(Counter(attempt.error for attempt in attempts if attempt.error)),
        "microseconds": statistics.median((attempt.ended - attempt.started) / 1000 for attempt in attempts),
    }


def main() -> None:
    """Serve in the background and carry out requests until standard input ends."""
    name, port = sys.argv[1], int(sys.argv[2])
    server = Server(name, port)
    server.start()
    if not server.listening.wait(10):
        sys.exit(f"{name} cannot listen on port {port}")
    client = Client(server)
    _say({"listening": port})
    for line in sys.stdin:
        _say(client.answer(json.loads(line)))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
