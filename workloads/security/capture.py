"""Packets as a capture file that tcpdump and Wireshark read: Ethernet, IPv4 and TCP headers, without what they carry.

Libpcap's format with nanoseconds (IETF draft-ietf-opsawg-pcap): a header of the file, and one of each packet.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from openinfer.workloads.security.packets import FIRST_OUTSIDER, FIRST_SERVER, HEADER, Table

from openinfer.config import write_atomically

_FILE = struct.Struct("<IHHiIII")
_MAGIC, _ETHERNET = 0xA1B23C4D, 1
_PACKET = np.dtype(
    [
        ("seconds", "<u4"),
        ("nanoseconds", "<u4"),
        ("kept", "<u4"),
        ("length", "<u4"),
        ("ethernet", "V12"),
        ("type", ">u2"),
        ("version", "u1"),
        ("service", "u1"),
        ("total", ">u2"),
        ("identity", ">u2"),
        ("fragment", ">u2"),
        ("life", "u1"),
        ("protocol", "u1"),
        ("checksum", ">u2"),
        ("source", ">u4"),
        ("target", ">u4"),
        ("source_port", ">u2"),
        ("target_port", ">u2"),
        ("sequence", ">u4"),
        ("acknowledged", ">u4"),
        ("offset", "u1"),
        ("flags", "u1"),
        ("window", ">u2"),
        ("sums", ">u4"),
    ]
)


def write(table: Table, path: Path) -> None:
    """The whole file or nothing. Clients are 10.0.0.0 and on, servers 172.16.0.0, others 100.0.0.0; checksums are left at 0."""
    packets = np.zeros(len(table), _PACKET)
    seconds = np.floor(table["time"])
    packets["seconds"], packets["nanoseconds"] = seconds, (table["time"] - seconds) * 1e9
    packets["kept"], packets["length"] = HEADER, table["size"]
    packets["type"], packets["version"], packets["life"], packets["protocol"] = 0x0800, 0x45, 64, 6
    packets["total"] = table["size"] - 14  # without Ethernet's header
    packets["source"], packets["target"] = _address(table["source"]), _address(table["target"])
    packets["source_port"], packets["target_port"] = table["source_port"], table["target_port"]
    packets["offset"], packets["flags"], packets["window"] = 0x50, table["flags"], 0xFFFF
    write_atomically(path, _FILE.pack(_MAGIC, 2, 4, 0, 0, HEADER, _ETHERNET) + packets.tobytes())


def _address(host: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    servers, others = (172 << 24) + (16 << 16) + host - FIRST_SERVER, (100 << 24) + host - FIRST_OUTSIDER
    return np.where(host < FIRST_SERVER, (10 << 24) + host, np.where(host < FIRST_OUTSIDER, servers, others))
