"""The network: sockets of every family that a process might speak through."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct

from openinfer.sandbox.attacks._base import REFUSED, Attack, Stage, call, system_calls

_STREAM, _DATAGRAM, _RAW = 1, 2, 3


def _connect_tcp(stage: Stage) -> None:
    descriptor = call("socket", socket.AF_INET, _STREAM, 0)
    call("connect", descriptor, struct.pack("=H", socket.AF_INET) + struct.pack("!HI", stage.port, 0x7F000001) + bytes(8), 16)


def _connect_unix(stage: Stage) -> None:
    descriptor = call("socket", socket.AF_UNIX, _STREAM, 0)
    address = struct.pack("=H", socket.AF_UNIX) + b"\0" + stage.address.encode()
    call("connect", descriptor, address, len(address))


def _listen(stage: Stage) -> None:
    descriptor = call("socket", socket.AF_INET, _STREAM, 0)
    call("bind", descriptor, struct.pack("=H", socket.AF_INET) + bytes(14), 16)


ATTACKS = [
    Attack("connect by TCP", "network", _connect_tcp, (*REFUSED, errno.ENETUNREACH)),
    Attack("connect to an abstract UNIX socket", "network", _connect_unix),
    Attack("listen on a TCP port", "network", _listen),
    *system_calls(
        "network",
        {
            "send datagrams": lambda s: ("socket", socket.AF_INET, _DATAGRAM, 0),
            "speak IPv6": lambda s: ("socket", 10, _STREAM, 0),
            "configure the network (netlink)": lambda s: ("socket", 16, _RAW, 0),
            "read raw packets": lambda s: ("socket", 17, _RAW, 0x300),
            "send ICMP": lambda s: ("socket", socket.AF_INET, _RAW, 1),
            "speak to the hypervisor (vsock)": lambda s: ("socket", 40, _STREAM, 0),
            "speak to the kernel's ciphers": lambda s: ("socket", 38, 5, 0),
            "make a pair of sockets": lambda s: ("socketpair", socket.AF_UNIX, _STREAM, 0, ctypes.create_string_buffer(8)),
        },
    ),
]
