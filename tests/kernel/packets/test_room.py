# SPDX-License-Identifier: Apache-2.0
"""Where there is plenty of room a TCP connection stands from its first packet on, answered or not."""

from __future__ import annotations

import pytest

from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.libbpf.bpf_object import BpfObject
from kubeproxy_ebpf.sweeper import Fill
from tests.kernel.packets import test_endpoints_elsewhere
from tests.kernel.packets.conftest import OBJECTS, SMALL_TABLES, Forward
from tests.kernel.packets.packet import UNSPEC, Endpoint, ends, tcp, udp
from tests.kernel.packets.test_endpoints_elsewhere import NODE
from tests.kernel.packets.test_endpoints_here import BACKENDS, CLIENTS, FRONTENDS, families, serve
from tests.kernel.programs.service_maps import LOAD_BALANCER

PLENTY = 1 << 20
TAKEN = 64 * syscalls.possible_cpus()
LONG, SHORT = 1_000_000, 60
"""Time-outs in seconds: more and less than how old :meth:`Forward.grow_old` makes everything."""


def tables(forward: Forward) -> tuple[int, int]:
    """Return how many entries stand, and how many may be forgotten."""
    return len(forward.entries("flows")), len(forward.entries("opening_flows"))


@pytest.fixture
def roomy(forward: Forward) -> Forward:
    """Return the programs with room for all that the table holds."""
    forward.give_room(PLENTY)
    return forward


@families
def test_a_connection_stands_at_once(roomy: Forward, family: int) -> None:
    """Both ways of it; every packet goes there and back as any other connection's."""
    serve(roomy, family)
    client, frontend, backend = CLIENTS[family], FRONTENDS[family], BACKENDS[family]
    for flags, answer in (("S", "SA"), ("S", "SA"), ("A", "A"), ("FA", "FA")):
        assert ends(roomy.translate("ingress", tcp(client, frontend, flags))) == (client, backend)
        assert ends(roomy.translate("egress", tcp(backend, client, answer))) == (frontend, client)
        assert tables(roomy) == (2, 0)


@families
def test_so_does_one_to_another_node(roomy: Forward, family: int) -> None:
    """Both of its halves."""
    test_endpoints_elsewhere.serve(roomy, family)
    client, frontend, backend = test_endpoints_elsewhere.CLIENTS[family], FRONTENDS[family], BACKENDS[family]
    for flags, answer in (("S", "SA"), ("S", "SA"), ("A", "A")):
        sent = roomy.translate("egress", roomy.translate("ingress", tcp(client, frontend, flags)))
        assert ends(sent) == ((NODE[family], client[1]), backend)
        back = roomy.translate("ingress", tcp(backend, ends(sent)[0], answer))
        assert ends(roomy.translate("egress", back)) == (frontend, client)
        assert tables(roomy) == (4, 0)


def test_an_opening_that_comes_again_follows_the_first(roomy: Forward) -> None:
    """To the same of many endpoints, counted once; unless that serves no more and has not answered."""
    backends: list[Endpoint] = [(f"10.1.1.{number}", 8080) for number in range(1, 11)]
    service = roomy.maps.service()
    ids = roomy.maps.publish(service, backends)
    roomy.maps.frontend(service, *FRONTENDS[4], kind=LOAD_BALANCER)
    (chosen,) = {ends(roomy.translate("ingress", tcp(CLIENTS[4], FRONTENDS[4])))[1] for _ in range(30)}
    assert tables(roomy) == (2, 0)
    assert roomy.maps.count("service_counters")[service][0] == 1
    others = [backend for backend in backends if backend != chosen]
    roomy.maps.publish(service, others)
    roomy.maps.retire(ids[backends.index(chosen)])
    found = {ends(roomy.translate("ingress", tcp(CLIENTS[4], FRONTENDS[4])))[1] for _ in range(30)}
    assert len(found) == 1
    assert found < set(others)


def test_a_port_that_is_used_again(roomy: Forward) -> None:
    """After the end of its connection, whose entries the sweep has not deleted yet: another one, which works."""
    service = serve(roomy, 4)
    client, frontend, other = CLIENTS[4], FRONTENDS[4], ("10.1.1.2", 8080)
    for flags, answer in (("S", "SA"), ("A", "FA"), ("FA", "A")):
        roomy.translate("ingress", tcp(client, frontend, flags))
        roomy.translate("egress", tcp(BACKENDS[4], client, answer))
    roomy.maps.publish(service, [other])
    for flags, answer in (("S", "SA"), ("A", "A")):
        assert ends(roomy.translate("ingress", tcp(client, frontend, flags))) == (client, other)
        assert ends(roomy.translate("egress", tcp(other, client, answer))) == (frontend, client)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
@pytest.mark.parametrize("has_room", [(True, True), (True, False), (False, True)], ids=str)
def test_one_port_of_a_client_for_two_frontends(
    roomy: Forward, *, elsewhere: bool, has_room: tuple[bool, bool]
) -> None:
    """To their common endpoint they would look alike: the second gets another source port, whichever table has it."""
    roomy.device(NODE[4], NODE[6])
    client, backend, frontends = CLIENTS[4], BACKENDS[4], [FRONTENDS[4], ("192.0.2.11", 80)]
    service = roomy.maps.service([backend], elsewhere=[backend] if elsewhere else [])
    sources = []
    for frontend, room in zip(frontends, has_room, strict=True):
        roomy.maps.frontend(service, *frontend, kind=LOAD_BALANCER)
        roomy.give_room(PLENTY if room else 0)
        sent = roomy.translate("ingress", tcp(client, frontend))
        sources.append(ends(roomy.translate("egress", sent) if elsewhere else sent)[0])
    assert sources[0] != sources[1]
    for source, frontend in zip(sources, frontends, strict=True):
        back = tcp(backend, source, "SA")
        if elsewhere:
            back = roomy.translate("ingress", back)
        assert ends(roomy.translate("egress", back)) == (frontend, client)


def test_a_flood_takes_no_more_than_the_room(forward: Forward) -> None:
    """What comes then may be forgotten, and works; what stood goes on."""
    serve(forward, 4)
    client, frontend, backend = CLIENTS[4], FRONTENDS[4], BACKENDS[4]
    forward.give_room(64)
    forward.translate("ingress", tcp(client, frontend))
    for number in range(640):
        source = (f"203.0.113.{number % 250}", 10000 + number)
        assert ends(forward.translate("ingress", tcp(source, frontend))) == (source, backend)
    standing, opening = tables(forward)
    assert standing <= SMALL_TABLES["flows"]
    assert opening
    assert ends(forward.translate("egress", tcp(backend, client, "SA"))) == (frontend, client)
    late = ("203.0.113.251", 50000)
    assert ends(forward.translate("ingress", tcp(late, frontend))) == (late, backend)
    assert ends(forward.translate("egress", tcp(backend, late, "SA"))) == (frontend, late)


def test_an_opening_for_which_there_was_no_room_is_followed(forward: Forward) -> None:
    """When it comes again and there is room: it is the same connection still."""
    backends: list[Endpoint] = [(f"10.1.1.{number}", 8080) for number in range(1, 11)]
    service = forward.maps.service(backends)
    forward.maps.frontend(service, *FRONTENDS[4], kind=LOAD_BALANCER)
    found = {ends(forward.translate("ingress", tcp(CLIENTS[4], FRONTENDS[4])))[1]}
    forward.give_room(PLENTY)
    found |= {ends(forward.translate("ingress", tcp(CLIENTS[4], FRONTENDS[4])))[1] for _ in range(30)}
    assert len(found) == 1
    assert forward.maps.count("service_counters")[service][0] == 1
    (backend,) = found
    for flags in ("SA", "A"):
        assert ends(forward.translate("egress", tcp(backend, CLIENTS[4], flags)))[0] == FRONTENDS[4]
        assert ends(forward.translate("ingress", tcp(CLIENTS[4], FRONTENDS[4], "A")))[1] == backend


def test_a_port_that_is_used_again_twice(roomy: Forward) -> None:
    """Its first packet comes again when the sweep has deleted what was in the way: it is the same connection still."""
    backends: list[Endpoint] = [(f"10.1.1.{number}", 8080) for number in range(1, 11)]
    roomy.maps.frontend(roomy.maps.service(backends), *FRONTENDS[4], kind=LOAD_BALANCER)
    backend = ends(roomy.translate("ingress", tcp(CLIENTS[4], FRONTENDS[4])))[1]
    for flags, answer in (("A", "SA"), ("FA", "FA")):
        roomy.translate("egress", tcp(backend, CLIENTS[4], answer))
        roomy.translate("ingress", tcp(CLIENTS[4], FRONTENDS[4], flags))
    found = set()
    for _ in range(4):
        found.add(ends(roomy.translate("ingress", tcp(CLIENTS[4], FRONTENDS[4])))[1])
        roomy.sweep()
    assert len(found) == 1


def test_datagrams_and_refusals_take_no_room(roomy: Forward) -> None:
    """Of the one most are single, of the other nobody has anything."""
    serve(roomy, 4, "UDP")
    roomy.device(NODE[4], NODE[6])
    roomy.translate("ingress", udp(CLIENTS[4], FRONTENDS[4]))
    roomy.maps.frontend(roomy.maps.service(), "192.0.2.11", 80, kind=LOAD_BALANCER)
    assert roomy.run("ingress", tcp(CLIENTS[4], ("192.0.2.11", 80)))[0] == UNSPEC
    assert tables(roomy) == (0, 4)


@pytest.mark.parametrize(
    ("packets", "is_confirmed"),
    [("", False), ("SA", False), ("SA S SA", False), ("SA A", True)],
    ids=["unanswered", "answered", "answered twice", "confirmed"],
)
def test_what_no_client_confirms_is_over_soon(roomy: Forward, packets: str, *, is_confirmed: bool) -> None:
    """Anybody may have sent its first packet, and an endpoint answers anybody. A confirmed one has hours."""
    serve(roomy, 4)
    roomy.translate("ingress", tcp(CLIENTS[4], FRONTENDS[4]))
    for flags in packets.split():
        if flags == "SA":
            roomy.translate("egress", tcp(BACKENDS[4], CLIENTS[4], flags))
        else:
            roomy.translate("ingress", tcp(CLIENTS[4], FRONTENDS[4], flags))
    times = {"tcp_unconfirmed_timeout": SHORT, "tcp_established_timeout": LONG}
    assert roomy.sweep(**times) == 2
    roomy.grow_old()
    assert roomy.sweep(**times) == (2 if is_confirmed else 0)


def test_who_takes_the_key_of_answers_ends_all_of_what_had_it(roomy: Forward) -> None:
    """That connection was closed: nothing of it is left behind."""
    client, backend, twin = CLIENTS[4], BACKENDS[4], ("192.0.2.11", 80)
    roomy.maps.frontend(serve(roomy, 4), *twin, kind=LOAD_BALANCER)
    for address, steps in ((FRONTENDS[4], ("S", "A", "FA")), (twin, ("S", "A"))):
        for flags in steps:
            assert ends(roomy.translate("ingress", tcp(client, address, flags)))[1] == backend
            answer = {"S": "SA"}.get(flags, flags)
            assert ends(roomy.translate("egress", tcp(backend, client, answer)))[0] == address
    for _ in range(2):
        assert roomy.sweep() == 0
    assert tables(roomy) == (0, 2)
    roomy.grow_old("opening_flows")  # what was in vain while the old ones were there is not tried again at once
    assert ends(roomy.translate("ingress", tcp(client, twin, "A"))) == (client, backend)
    assert tables(roomy) == (2, 0)


def test_half_a_connection_is_over_soon(roomy: Forward) -> None:
    """Nothing more will come of it."""
    serve(roomy, 4)
    for flags, answer in (("S", "SA"), ("A", "A")):
        roomy.translate("ingress", tcp(CLIENTS[4], FRONTENDS[4], flags))
        roomy.translate("egress", tcp(BACKENDS[4], CLIENTS[4], answer))
    roomy.grow_old()
    times = {"tcp_unconfirmed_timeout": SHORT, "tcp_established_timeout": LONG}
    assert roomy.sweep(**times) == 2
    roomy.delete("flows", next(iter(roomy.entries("flows"))))
    assert roomy.sweep(**times) == 0


def test_a_connection_that_one_side_has_closed_keeps_its_answers(roomy: Forward) -> None:
    """A client that sends on gets acknowledgements: no other connection takes their key."""
    client, backend, twin = CLIENTS[4], BACKENDS[4], ("192.0.2.11", 80)
    roomy.maps.frontend(serve(roomy, 4), *twin, kind=LOAD_BALANCER)
    for flags, answer in (("S", "SA"), ("A", "FA"), ("A", "A")):
        roomy.translate("ingress", tcp(client, FRONTENDS[4], flags))
        roomy.translate("egress", tcp(backend, client, answer))
    source = ends(roomy.translate("ingress", tcp(client, twin)))[0]
    assert source != client
    assert ends(roomy.translate("egress", tcp(backend, client, "A"))) == (FRONTENDS[4], client)
    assert ends(roomy.translate("egress", tcp(backend, source, "SA"))) == (twin, client)


def test_the_agent_gives_half_of_the_table_less_what_stands(forward: Forward) -> None:
    """With each sweep, and less what processors may have taken without using it."""
    serve(forward, 4)
    with BpfObject(OBJECTS / "sweep.bpf.o") as sweeper:
        path = forward.packet_path(sweeper)
        capacity = SMALL_TABLES["flows"]
        assert path.sweep() == Fill(0, capacity)
        assert forward.room() == capacity // 2 - TAKEN
        forward.give_room(PLENTY)
        for number in range(3):
            forward.translate("ingress", tcp(("203.0.113.1", 10000 + number), FRONTENDS[4]))
        assert path.sweep() == Fill(6, capacity)
        assert forward.room() == capacity // 2 - TAKEN - 6
        forward.grow_old()
        assert path.sweep() == Fill(0, capacity)
        assert forward.room() == capacity // 2 - TAKEN - 6, "they are there until the next sweep"
        assert path.sweep() == Fill(0, capacity)
        assert forward.room() == capacity // 2 - TAKEN
        path.close()
