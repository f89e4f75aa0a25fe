"""What crosses the ring is believed only as far as it was checked."""

from __future__ import annotations

import numpy as np
import pytest

from openinfer.ir.graph import Signature
from openinfer.sandbox import messages
from openinfer.sandbox.messages import MalformedError, Place
from openinfer.sandbox.ring import MESSAGE_WORDS

SIGNATURES = (Signature("a", "float32", ("n", 4)), Signature("b", "int64", None))
START, STOP = 4096, 1 << 20


def _message(*words: int) -> messages.Words:
    message = np.zeros(MESSAGE_WORDS, np.int64)
    message[: len(words)] = words
    return message


def test_places_come_back_as_they_were_written() -> None:
    places = [Place(4096, (3, 4)), Place(8192, ())]
    message = _message()
    messages.write_places(message, 2, places)
    assert messages.read_places(message, 2, SIGNATURES, START, STOP) == places


@pytest.mark.parametrize(
    "words",
    [
        (0, 2, 3, 4, 8192, 0),  # before the data
        (4097, 2, 3, 4, 8192, 0),  # off its alignment
        (-4096, 2, 3, 4, 8192, 0),
        (STOP - 64, 2, 5, 4, 8192, 0),  # its end lies outside
        (4096, 2, -3, 4, 8192, 0),
        (4096, 2, 3, 5, 8192, 0),  # not the signature's
        (4096, 3, 3, 4, 1, 8192, 0),
        (4096, 2, 1 << 62, 4, 8192, 0),
        (4096, 2, 3, 4, 8192, 17),
        (4096, 2, 3, 4, 8192, -1),
        (4096, 2, 3, 4, 8192, 3, 4194305, 4194305, 211106198978564),  # a product that wraps to 4
    ],
)
def test_other_places_are_refused(words: tuple[int, ...]) -> None:
    with pytest.raises(MalformedError):
        messages.read_places(_message(*words), 0, SIGNATURES, START, STOP)


def test_a_message_that_ends_too_early_is_refused() -> None:
    with pytest.raises(MalformedError):
        messages.read_places(_message(), MESSAGE_WORDS - 1, SIGNATURES, START, STOP)
    with pytest.raises(MalformedError):
        messages.write_places(_message(), MESSAGE_WORDS - 1, [Place(4096, (3, 4))])


def test_errors_are_one_printable_line_of_bounded_length() -> None:
    message = _message()
    messages.write_error(message, "ValueError", "a\x1b[2J\nb" + "c" * 100_000)
    kind, text = messages.read_error(message.copy())
    assert kind == "ValueError" and text.isprintable() and len(text) == 500
    message[0] = -(1 << 62)
    assert messages.read_error(message.copy()) == ("", "")
    message[0] = 1 << 62
    assert messages.read_error(message.copy())[0] == "ValueError"
