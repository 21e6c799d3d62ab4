# SPDX-License-Identifier: Apache-2.0
"""Packets to a file that Wireshark and tcpdump read: pcapng (draft-ietf-opsawg-pcapng), in native byte order."""

from __future__ import annotations

from pathlib import Path
from struct import Struct
from typing import Final

from kubeproxy_ebpf.map_schema import PacketCopy

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
"""Types of blocks."""
_BYTE_ORDER: Final = 0x1A2B3C4D
_ETHERNET, _RAW_IP = 1, 101
"""LINKTYPE_ETHERNET, LINKTYPE_RAW."""
_COMMENT, _NAME, _RESOLUTION = 1, 2, 9
"""Options: opt_comment, if_name, if_tsresol."""
_NANOSECONDS = b"\x09"
"""Ten to the power of minus this is the unit of time."""

_FRAME = Struct("=II")
"""Type and length of a block; the length stands at its end, too."""
_LENGTH = Struct("=I")
_SECTION_BODY = Struct("=IHHq")
_INTERFACE_BODY = Struct("=HHI")
_PACKET_BODY = Struct("=IIIII")
_OPTION = Struct("=HH")
_ALIGNMENT = 4
_END_OF_OPTIONS = _OPTION.pack(0, 0)


class PacketFileError(Exception):
    """The file of packets takes no more."""

    def __init__(self, path: Path, cause: OSError) -> None:
        """Say why."""
        super().__init__(f"cannot write {path}: {cause.strerror}; make room, or choose another file with --write")


class PacketFile:
    """A file that grows by one packet after the other, and can be read meanwhile."""

    def __init__(self, path: Path) -> None:
        """Begin the file, in place of what it was.

        Raises:
            PacketFileError: it cannot be written.
        """
        self._interfaces: dict[tuple[str, bool], int] = {}
        self._path = path
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise PacketFileError(path, error) from error
        try:
            self._write(_SECTION, _SECTION_BODY.pack(_BYTE_ORDER, 1, 0, -1))
        except PacketFileError:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add(self, packet: PacketCopy, *, device: str, time: int, comment: str) -> None:
        """Write a packet. ``time``: nanoseconds since the epoch.

        Raises:
            PacketFileError: it cannot be written.
        """
        size = len(packet.data)
        interface = self._interface(device, has_ethernet=packet.has_ethernet)
        head = _PACKET_BODY.pack(interface, time >> 32, time & 0xFFFFFFFF, size, packet.length)
        self._write(_PACKET, head + _padded(packet.data) + _options((_COMMENT, comment.encode())))

    def _interface(self, device: str, *, has_ethernet: bool) -> int:
        """Return the number of a device in this file, which is described before its first packet."""
        key = (device, has_ethernet)
        if key not in self._interfaces:
            head = _INTERFACE_BODY.pack(_ETHERNET if has_ethernet else _RAW_IP, 0, 0)
            options = _options((_NAME, device.encode(errors="surrogateescape")), (_RESOLUTION, _NANOSECONDS))
            self._write(_INTERFACE, head + options)
            self._interfaces[key] = len(self._interfaces)
        return self._interfaces[key]

    def _write(self, kind: int, body: bytes) -> None:
        length = _FRAME.size + len(body) + _LENGTH.size
        block = _FRAME.pack(kind, length) + body + _LENGTH.pack(length)
        try:
            while block:
                block = block[self._file.write(block) :]
        except OSError as error:
            raise PacketFileError(self._path, error) from error


def _options(*options: tuple[int, bytes]) -> bytes:
    return b"".join(_OPTION.pack(code, len(value)) + _padded(value) for code, value in options) + _END_OF_OPTIONS


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
