# SPDX-License-Identifier: Apache-2.0
"""Packets that were seen come out of the file as they went in, for who reads pcapng: here scapy does."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import PcapNgReader

from kubeproxy_ebpf.cli.packet_file import PacketFile, PacketFileError
from kubeproxy_ebpf.map_schema import PacketCopy
from tests.kernel.packets.packet import IP, UDP, Ether, Raw

DATAGRAM = IP(src="203.0.113.5", dst="192.0.2.1") / UDP(sport=40000, dport=53) / Raw(b"question")
A_MOMENT = 1_700_000_000_123_456_789


def read(path: Path) -> list[Any]:
    """Return the packets of a file."""
    with closing(PcapNgReader(str(path))) as reader:
        return list(reader)


@pytest.mark.parametrize("padding", range(4))
def test_a_packet_comes_back(tmp_path: Path, padding: int) -> None:
    """With its time to the nanosecond, its device, what was said of it, and whatever its length is."""
    data = bytes(Ether() / DATAGRAM) + bytes(padding)
    with closing(PacketFile(tmp_path / "one.pcapng")) as file:
        file.add(
            PacketCopy(1500, has_ethernet=True, data=data), device="eth0", time=A_MOMENT, comment="DNAT 10.1.0.5:8080 é"
        )
    (packet,) = read(tmp_path / "one.pcapng")
    assert bytes(packet) == data
    assert packet[UDP].dport == 53
    assert packet.wirelen == 1500
    assert packet.time == pytest.approx(A_MOMENT / 1e9, abs=1e-6)
    assert packet.sniffed_on == "eth0"
    assert packet.comment == "DNAT 10.1.0.5:8080 é".encode()


def test_devices_are_told_apart(tmp_path: Path) -> None:
    """Also those whose packets begin with the IP header."""
    path = tmp_path / "many.pcapng"
    with closing(PacketFile(path)) as file:
        for device, has_ethernet in (("eth0", True), ("wg0", False), ("eth0", True), ("wg0", False)):
            data = bytes(Ether() / DATAGRAM) if has_ethernet else bytes(DATAGRAM)
            file.add(PacketCopy(len(data), has_ethernet, data), device=device, time=A_MOMENT, comment="")
            assert read(path)[-1].sniffed_on == device, "what is there can be read while more comes"
    packets = read(path)
    assert [packet.sniffed_on for packet in packets] == ["eth0", "wg0", "eth0", "wg0"]
    assert [Ether in packet for packet in packets] == [True, False, True, False]
    assert all(bytes(packet[IP]) == bytes(DATAGRAM) for packet in packets)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """Says which, why, and what to do: at its beginning and later."""
    with pytest.raises(PacketFileError, match=r"missing/file: No such file or directory; make room, or choose"):
        PacketFile(tmp_path / "missing" / "file")
    with pytest.raises(PacketFileError, match="/dev/full: No space left"):
        PacketFile(Path("/dev/full"))
