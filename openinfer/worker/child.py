"""The child's side: builds the object that the parent named, then answers one request after another.

Started as `python -m openinfer.worker.child FD PARENT_PID [untied]`. The first message says which factory to call; every later one names
a method of what it returned. Dies with the thread that started it; `untied`, at the end of the channel.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import socket
import sys
import traceback
from typing import Any

from openinfer.errors import OpenInferError
from openinfer.worker.channel import ChannelClosed, receive, send

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until the channel closes."""
    handle, parent = int(sys.argv[1]), int(sys.argv[2])
    if "untied" not in sys.argv[3:]:
        _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=handle)
    try:
        _serve(connection)
    except ChannelClosed:
        os._exit(0)


def _die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends; it may have ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _serve(connection: socket.socket) -> None:
    target: Any = None
    while True:
        request = receive(connection)
        method = request.pop("_method")
        try:
            if method == "_open":
                target = _open(request)
                reply: Any = {}
            elif method == "_close":
                close = getattr(target, "close", None)
                if close is not None:
                    close()
                send(connection, {"_error": None})
                return
            else:
                reply = getattr(target, method)(**request)
        except Exception as error:
            traceback.print_exc()
            send(
                connection,
                {
                    "_error": str(error) or type(error).__name__,
                    "_type": type(error).__name__,
                    "_expected": isinstance(error, OpenInferError),
                },
            )
        else:
            send(connection, {"_error": None, **(reply or {})})


def _open(request: dict[str, Any]) -> Any:
    for entry in request["path"]:
        if entry not in sys.path:
            sys.path.append(entry)
    module, _, name = request["factory"].partition(":")
    return getattr(importlib.import_module(module), name)(**request["spec"])


if __name__ == "__main__":
    main()
