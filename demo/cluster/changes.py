# SPDX-License-Identifier: Apache-2.0
"""Scenes: somebody changes a Deployment and its Service, the controllers do their work, and connections go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from demo.cluster import tables
from demo.cluster.objects import APP, CLUSTER_IP, SERVICE, SERVICE_PORT, another_version, deployment, scaled
from demo.cluster.progress import Progress
from demo.cluster.show import CLIENT, Show
from demo.processes import Background
from demo.show import show_peer, wait_for_more
from tools.kubernetes.client import Client

_FEW = 20
_MANY = 300
"""Connections that are made before a change and after it."""
_PAUSE = 0.001
"""Seconds between two connections, so that Kubernetes gets its share of a small machine."""
_REFUSED, _DROPPED = "ECONNREFUSED", "ETIMEDOUT"
"""From a Service without endpoints, and from a ClusterIP that no Service has."""
_CUT_SHORT = frozenset({"ECONNRESET", "closed without a word"})
"""From a server that ends although nobody could take its place."""
_FRONTEND = show_peer(CLUSTER_IP, SERVICE_PORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that a user asks for."""

    title: str
    """For a table."""
    request: str
    """What is sent, for people."""
    send: Callable[[Client], object]
    comes: int = 0
    goes: int = 0
    """How many Pods come and go by it."""
    may_fail: frozenset[str] = frozenset()
    """How connections may fail meanwhile, if they may."""


def create(show: Show) -> None:
    """Create everything."""
    show.stage.scene("A Service and a Deployment are created")
    before = show.world[CLIENT].connect(CLUSTER_IP, SERVICE_PORT)
    show.stage.expect(before.errors == {_DROPPED: 1}, f"{_DROPPED} from a ClusterIP that no Service has", before)
    show.stage.saw(f"before that {_FRONTEND} gives {_DROPPED}")
    _create(show, "create")


def scale_up(show: Show) -> None:
    """Scale up."""
    show.stage.scene("The Deployment is scaled up")
    _play(
        show,
        Change(title="scale 3 → 5", request="PATCH replicas: 5", send=_patch(scaled(5)), comes=2),
    )


def roll(show: Show) -> None:
    """Replace every Pod."""
    show.stage.scene("Another version is rolled out: every Pod is replaced")
    _play(
        show,
        Change(title="roll 5", request="PATCH template", send=_patch(another_version()), comes=5, goes=5),
    )


def scale_down(show: Show) -> None:
    """Scale down."""
    show.stage.scene("The Deployment is scaled down")
    _play(show, Change(title="scale 5 → 2", request="PATCH replicas: 2", send=_patch(scaled(2)), goes=3))


def scale_to_zero(show: Show) -> None:
    """Scale to zero: the last Pods serve until they end, then connections are refused at once."""
    stage = show.stage
    stage.scene("The Deployment is scaled to zero")
    change = Change(
        title="scale 2 → 0",
        request="PATCH replicas: 0",
        send=_patch(scaled(0)),
        goes=2,
        may_fail=frozenset({_REFUSED}) | _CUT_SHORT,
    )
    done = _play(show, change)
    last = max(step.in_effect or 0 for step in done.steps())
    stage.saw(f"with no other Pod left those that go served on, until {done.milliseconds(last):.0f} ms")
    refused = show.world[CLIENT].connect(CLUSTER_IP, SERVICE_PORT, count=_MANY)
    stage.expect(refused.errors == {_REFUSED: _MANY}, f"{_MANY} times {_REFUSED}", refused)
    stage.saw(f"then {_MANY} of {_MANY} connections: {_REFUSED}, after {refused.microseconds:.0f} µs (median)")


def scale_from_zero(show: Show) -> None:
    """Scale up from nothing."""
    show.stage.scene("The Deployment is scaled up from zero")
    change = Change(
        title="scale 0 → 3",
        request="PATCH replicas: 3",
        send=_patch(scaled(3)),
        comes=3,
        may_fail=frozenset({_REFUSED}),
    )
    _expect_no_failure_after_the_first_answer(show, _play(show, change))


def recreate(show: Show) -> None:
    """Delete everything, and create it anew under the same name and address."""
    show.stage.scene("Service and Deployment are deleted, and created again under the same names")
    before = _uid(show)
    change = Change(
        title="delete",
        request=f"DELETE service {APP}, deployment {APP}",
        send=_delete,
        goes=3,
        may_fail=frozenset({_DROPPED, _REFUSED}) | _CUT_SHORT,
    )
    _play(show, change)
    _create(show, "create again")
    after = _uid(show)
    show.stage.expect(before != after, "another object", after)
    show.stage.saw(f"the Service has the uid {after}, before it was {before}")


def _create(show: Show, title: str) -> None:
    change = Change(
        title=title,
        request=f"POST service {APP} ({CLUSTER_IP}), deployment {APP} (3 replicas)",
        send=_create_both,
        comes=3,
        may_fail=frozenset({_DROPPED, _REFUSED}),
    )
    _expect_no_failure_after_the_first_answer(show, _play(show, change))


def _create_both(user: Client) -> None:
    user.create(SERVICE)
    user.create(deployment(3))


def _delete(user: Client) -> None:
    user.delete(SERVICE)
    user.delete(deployment(0))


def _patch(what: dict[str, object]) -> Callable[[Client], object]:
    return lambda user: user.patch(deployment(0), what)


def _uid(show: Show) -> str:
    uid: str = show.user.read(SERVICE)["metadata"]["uid"]
    return uid


def _play(show: Show, change: Change) -> Progress:
    """Make a change while connections are made without end, and return what became of it when it is over."""
    stage = show.stage
    stage.did(f"{CLIENT}: connections to {_FRONTEND} without end, one after the other; then {change.request}")
    connections = show.world[CLIENT].repeat(CLUSTER_IP, SERVICE_PORT, pause=_PAUSE)
    wait_for_more(connections, _FEW)
    logged = len(list(show.agent.events()))
    asked = time.monotonic_ns()
    change.send(show.user)
    acknowledged = time.monotonic_ns()

    def progress() -> Progress:
        return Progress(
            asked=asked,
            acknowledged=acknowledged,
            endpoints=show.slices.endpoints(),
            seen=connections.repetition(),
            syncs=[one for one in list(show.agent.events())[logged:] if one["event"] == "services_synced"],
        )

    done = _watch(show, change, connections, progress)
    connections.stop_repetition()
    steps = done.steps()
    numbers = {"come": sum(step.comes for step in steps), "go": sum(not step.comes for step in steps)}
    wanted = {"come": change.comes, "go": change.goes}
    stage.expect(numbers == wanted, f"so many Pods: {wanted}", numbers)
    early = [step.name for step in steps if step.comes and (step.in_effect or 0) < show.kubelet.reported[step.name]]
    stage.expect(not early, "no connection to a Pod that is not ready yet", early)
    show.changes.append((change.title, done))
    return done


def _watch(show: Show, change: Change, connections: Background, progress: Callable[[], Progress]) -> Progress:
    """Show a table of what happens until a change is over, and connections have gone on for a while."""
    with show.stage.live() as draw:

        def is_over() -> bool:
            newest = progress()
            draw(tables.of_change(newest))
            _expect_no_needless_failure(show, change, newest)
            return newest.is_over(change.comes, change.goes)

        show.wait_until(is_over, f"{change.comes} Pods to come and {change.goes} to go")
        wait_for_more(connections, _MANY)
        done = progress()
        draw(tables.of_change(done))
    _expect_no_needless_failure(show, change, done)
    return done


def _expect_no_needless_failure(show: Show, change: Change, done: Progress) -> None:
    needless = done.seen.errors.keys() - change.may_fail
    show.stage.expect(not needless, "no connection to fail while there is somebody to answer", done.seen.errors)


def _expect_no_failure_after_the_first_answer(show: Show, done: Progress) -> None:
    first = min(step.in_effect or 0 for step in done.steps())
    last = max((done.seen.last[error] for error in done.seen.errors), default=0)
    late = f"a failure {(last - first) / 1e6:.1f} ms after the first answer"
    show.stage.expect(last < first, "no connection to fail once the first was answered", late)
