"""Runs every attack inside a live worker and judges it. What cannot be judged counts as a failure: the suite fails closed."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from openinfer.codegen import object_cache
from openinfer.config import SandboxConfig
from openinfer.errors import OpenInferError, SandboxError
from openinfer.sandbox.attacks._base import Attack
from openinfer.sandbox.attacks.target import ABSENT, ATTACKS, HONEST, REFUSED, THROUGH
from openinfer.sandbox.calls import Call, Calls
from openinfer.sandbox.host import Source

NOBODY = 65534
KNOBS = SandboxConfig(mode="strict", timeout_ms=600, memory_mb=64, shared_mb=4)
_FILES = ("rename", "remove", "linked", "mode", "truncate")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`stopped` is None where the attack cannot be judged; `how` says what happened."""

    name: str
    group: str
    stopped: bool | None
    how: str


def run(
    user: int = -1, lock: str = "full", knobs: SandboxConfig = KNOBS, without: Collection[str] = ()
) -> tuple[list[Verdict], tuple[str, ...]]:
    """Every attack's verdict, and what the worker had given up. `user` ≥ 0 starts as that user (needs root); `lock` "keep-root" leaves a
    root worker root, "none" locks nothing, to show which attacks get through then. `without` leaves groups out. `SandboxError` where the
    sandbox does not start.
    """
    with _stage(user) as stage:
        source = Source(
            "openinfer.sandbox.attacks.target:open_target", {"stage": stage}, object_cache.sandbox_folder(b"attacks"), user=user, lock=lock
        )
        calls = Calls(source, knobs if lock != "none" else knobs.model_copy(update={"mode": "process"}))
        try:
            call = calls.bind(((1,),))
            verdicts = [
                _judged(calls, call, number, attack, fresh=lock == "none")
                for number, attack in enumerate(ATTACKS, 1)
                if attack.group not in without
            ]
            return verdicts, calls.client.protections()
        finally:
            calls.client.close()


def identities() -> dict[str, tuple[int, str]]:
    """The ways in which this process can start the suite: name → `user` and `lock` of `run`."""
    if os.geteuid() != 0:
        return {"user": (-1, "full")}
    return {"root": (-1, "keep-root"), "root that becomes nobody": (-1, "full"), "user": (NOBODY, "full")}


def _judged(calls: Calls, call: Call, number: int, attack: Attack, fresh: bool) -> Verdict:
    for _ in range(2):  # on a busy machine anything may be late once
        stopped, how = _attempted(calls, call, number, attack)
        if fresh or attack.judge:
            calls.client.renew()
        again = _honest(call)
        if again is not None:
            stopped, how = None, f"{how}; the next request: {again}"
        if stopped is not None:
            break
    return Verdict(attack.name, attack.group, stopped, how)


def _attempted(calls: Calls, call: Call, number: int, attack: Attack) -> tuple[bool | None, str]:
    outcome = (call.outputs or {})["outcome"]
    outcome.fill(0)
    call.inputs["attack"][0] = number
    calls.client.last_end = ""
    try:
        call()
        if attack.judge == "bind":
            calls.bind(((1,),))
    except SandboxError as error:
        end = calls.client.last_end
        if attack.judge in ("answer", "bind"):
            return True, f"the answer was refused: {error}"
        if end in attack.ends:
            return True, {"hung": "ended at the time-out", "memory": "ended at the memory limit"}.get(end, f"ended by {end}")
        return (True if attack.judge == "contained" else None), f"the worker ended: {end or error}"
    except OpenInferError as error:
        return bool(attack.judge) or None, f"refused: {error}"
    if attack.judge:
        return attack.judge == "contained", "answered, and the next worker answered right" if attack.judge == "contained" else "believed"
    form, detail = int(outcome[0]), int(outcome[1])
    name = errno.errorcode.get(detail, str(detail))
    if form == THROUGH:
        return False, "got through"
    if form == REFUSED:
        return (True, f"refused ({name})") if detail in attack.refusals else (False, f"reached the kernel ({name})")
    if form == ABSENT:
        return True, "does not exist on this architecture"
    return None, f"reported {form}, {detail}"


def _honest(call: Call) -> str | None:
    """Nothing where a request is answered right, else what happened. One more try: the worker may just be ending."""
    problem = ""
    for _ in range(2):
        number = -secrets.randbelow(1 << 30)
        call.inputs["attack"][0] = number
        try:
            call()
        except OpenInferError as error:
            problem = str(error)
            continue
        outcome = (call.outputs or {})["outcome"]
        if (int(outcome[0]), int(outcome[1])) == (HONEST, 2 * number):
            return None
        problem = "a wrong answer"
    return problem


@contextlib.contextmanager
def _stage(user: int) -> Iterator[dict[str, object]]:
    """A folder with files, a process, a listening port and socket: all within the attacker's reach but for the sandbox."""
    folder = Path(tempfile.mkdtemp(prefix="openinfer-attacks-"))
    address = f"openinfer-{secrets.token_hex(8)}"
    victim = subprocess.Popen(
        ["sleep", "3600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, user=user if user >= 0 else None, start_new_session=True
    )
    try:
        for name in (*_FILES, "secret"):
            (folder / name).write_text("private")
            (folder / name).chmod(0o600)
        if user >= 0:
            for path in (folder, *folder.iterdir()):
                os.chown(path, user, user)
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
            unix.bind(f"\0{address}")
            unix.listen()
            yield {
                "folder": str(folder),
                "secret": str(folder / "secret"),
                "victim": victim.pid,
                "parent": os.getpid(),
                "port": tcp.getsockname()[1],
                "address": address,
            }
    finally:
        victim.kill()
        victim.wait()
        shutil.rmtree(folder, ignore_errors=True)
