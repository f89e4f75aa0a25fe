"""The ring: a worker that writes what no honest one does. The parent must refuse it by name, and the next worker must answer."""

from __future__ import annotations

import ctypes
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from openinfer.sandbox import messages
from openinfer.sandbox.attacks._base import Attack, Stage
from openinfer.sandbox.inside import Inside
from openinfer.sandbox.ring import DATA_BYTES, DONE, LINE, POSTED, QUEUE, READY, SLOTS, STATE, STATES, WAITERS, Ring, Words

_GARBAGE = -0x7FFFFFFFFFFFFFFF


def _inside() -> Inside:
    """The serving loop that called: an attacker in the process finds it on the stack."""
    frame = sys._getframe()
    while frame is not None:
        holder = frame.f_locals.get("self")
        if isinstance(holder, Inside):
            return holder
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    raise RuntimeError("not inside a worker")


def _ring() -> Ring:
    return _inside()._ring


def _states(value: int) -> None:
    words = _ring().words
    for slot in range(SLOTS):
        words[STATES + slot * LINE + STATE] = value


def _unknown_state(stage: Stage) -> None:
    inside = _inside()
    for slot in range(SLOTS):
        base = STATES + slot * LINE
        inside._post(inside._ring.word(base + STATE), 77, inside._ring.word(base + WAITERS))
    _spin(stage)


def _early_answer(stage: Stage) -> None:
    """Claim to be done, then never be."""
    _states(DONE)
    _spin(stage)


def _spin(stage: Stage) -> None:
    while True:
        continue


def _sleep(stage: Stage) -> None:
    while True:
        time.sleep(1000)


def _crash(stage: Stage) -> None:
    """Die in the middle of writing an answer."""
    words = _ring().words
    words[STATES : STATES + LINE] = _GARBAGE
    ctypes.memset(8, 0, 1)


def _scribble(stage: Stage) -> None:
    """Overwrite every control word, then die."""
    _ring().words[:] = _GARBAGE
    ctypes.memset(8, 0, 1)


def _corrupt_queue(stage: Stage) -> None:
    words = _ring().words
    words[QUEUE : QUEUE + SLOTS] = _GARBAGE
    words[READY] = _GARBAGE
    words[POSTED] = 1 << 40


def _count_waiters(stage: Stage) -> None:
    words = _ring().words
    for slot in range(SLOTS):
        words[STATES + slot * LINE + WAITERS] = 1 << 62


def _answer_without_end(stage: Stage) -> None:
    """Finish every slot again and again while the parent goes on."""
    words = _ring().words
    until = time.monotonic() + 0.3
    for value in itertools.cycle((DONE, 77, _GARBAGE)):
        words[STATES : STATES + SLOTS * LINE : LINE] = value
        if time.monotonic() > until:
            break
    _spin(stage)


def _lie(words_of_answer: Sequence[int]) -> Callable[[Stage], object]:
    """From now on place the outputs of a binding as these words say."""

    def arm(stage: Stage) -> None:
        def write(words: Words, at: int, places: Any) -> int:
            words[at : at + len(words_of_answer)] = words_of_answer
            return at

        messages.write_places = write

    return arm


def _lie_about_form(stage: Stage) -> None:
    def write(words: Words, at: int, places: Any) -> int:
        words[0] = 99
        return at

    messages.write_places = write


def _needs_without_end(stage: Stage) -> None:
    def write(words: Words, at: int, places: Any) -> int:
        words[:2] = messages.NEEDS, 1 << 60
        return at

    messages.write_places = write


def _change_after_the_check(stage: Stage) -> None:
    """Announce the answer, then flip it between a right and a wrong one while the parent reads."""

    def write(words: Words, at: int, places: Any) -> int:
        right = [number for place in places for number in (place.offset, len(place.shape), *place.shape)]
        wrong = [1 << 50, 1, 1 << 50]
        words[at : at + len(right)] = right
        control = _inside()._ring.words
        control[STATES : STATES + SLOTS * LINE : LINE] = DONE
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            words[at : at + 3] = wrong
            words[at : at + 3] = right[:3]
        return at

    messages.write_places = write


def _endless_error(stage: Stage) -> None:
    def write(words: Words, kind: str, text: str) -> None:
        words[:] = int.from_bytes(b"\x1b[2J\x07\n\r\0", "little", signed=True)
        words[0] = 1 << 60

    messages.write_error = write
    raise ValueError("now")


ATTACKS = [
    Attack("answer in a state that does not exist", "ring", _unknown_state, judge="answer"),
    Attack("claim to be done and hang", "ring", _early_answer, ends=("hung",), judge="contained"),
    Attack("spin for ever", "ring", _spin, ends=("hung",), judge="contained"),
    Attack("sleep for ever", "ring", _sleep, ends=("hung",), judge="contained"),
    Attack("die while writing the answer", "ring", _crash, ends=("SIGSEGV",), judge="contained"),
    Attack("overwrite every control word and die", "ring", _scribble, ends=("SIGSEGV",), judge="contained"),
    Attack("corrupt the queue", "ring", _corrupt_queue, ends=("hung",), judge="contained"),
    Attack("count waiters that do not wait", "ring", _count_waiters, judge="contained"),
    Attack("answer without end", "ring", _answer_without_end, ends=("hung",), judge="contained"),
    Attack("place an output before the data", "ring", _lie((0, 1, 2)), judge="bind"),
    Attack("place an output behind the ring", "ring", _lie((1 << 40, 1, 2)), judge="bind"),
    Attack("place an output at a negative offset", "ring", _lie((-4096, 1, 2)), judge="bind"),
    Attack("place an output off its alignment", "ring", _lie((DATA_BYTES + 1, 1, 2)), judge="bind"),
    Attack("give an output a million dimensions", "ring", _lie((DATA_BYTES, 1_000_000, 2)), judge="bind"),
    Attack("give an output a negative size", "ring", _lie((DATA_BYTES, 1, -2)), judge="bind"),
    Attack("give an output a size that wraps", "ring", _lie((DATA_BYTES, 3, 4194305, 4194305, 211106198978564)), judge="bind"),
    Attack("answer in a form that does not exist", "ring", _lie_about_form, judge="bind"),
    Attack("ask for an exabyte of results", "ring", _needs_without_end, judge="bind"),
    Attack("change the answer after the check", "ring", _change_after_the_check, judge="contained"),
    Attack("send an error without end, with terminal codes", "ring", _endless_error, judge="answer"),
]
