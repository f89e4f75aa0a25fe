"""Numbers as people read them: three figures, a unit, a real minus sign, thousands apart; never an exponent where a word will do."""

from __future__ import annotations

import datetime
import math

from openinfer.profiles.study_record import Interval

MINUS = "\u2212"
NARROW = "\u202f"  # keeps a number and its unit on one line
LARGEST = 10.0  # a ratio beyond this is told as "more than 10×": its digits mean nothing


def figures(value: float, count: int = 3) -> str:
    """`count` significant figures without an exponent, e.g. 1,230 or 0.0123."""
    if not math.isfinite(value):
        return "∞" if value > 0 else f"{MINUS}∞" if value < 0 else "not known"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{count - 1}e}")
    digits = count - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, digits)}f}".replace("-", MINUS)


def time(nanoseconds: float) -> str:
    """A time with three figures and its unit."""
    for limit, unit, scale in ((999.5, "ns", 1.0), (999.5e3, "µs", 1e3), (999.5e6, "ms", 1e6)):
        if abs(nanoseconds) < limit:
            return f"{figures(nanoseconds / scale)}{NARROW}{unit}"
    return f"{figures(nanoseconds / 1e9)}{NARROW}s"


def limit(nanoseconds: float) -> str:
    """A time that somebody chose, without the zeros that a measured one would show: 1 ms."""
    for edge, unit, scale in ((1e3, "ns", 1.0), (1e6, "µs", 1e3), (1e9, "ms", 1e6)):
        if nanoseconds < edge:
            return f"{nanoseconds / scale:g}{NARROW}{unit}"
    return f"{nanoseconds / 1e9:g}{NARROW}s"


def percentile(quantile: float) -> str:
    """0.999 as 99.9."""
    return f"{100 * quantile:.6g}"


def seconds(value: float) -> str:
    """A time that was measured in seconds."""
    return time(value * 1e9) if value < 60 else f"{int(value // 60)}{NARROW}min {int(value % 60)}{NARROW}s"


def size(count: float) -> str:
    """Bytes in binary units."""
    for limit, unit in ((1 << 20, "KiB"), (1 << 30, "MiB")):
        if abs(count) < limit:
            return f"{figures(count / (limit >> 10))}{NARROW}{unit}"
    return f"{figures(count / (1 << 30))}{NARROW}GiB"


def whole(value: float) -> str:
    """A count, thousands apart."""
    return f"{value:,.0f}".replace("-", MINUS)


def percent(value: float) -> str:
    """A fraction as a percentage with two figures; small ones are told apart from none."""
    if value != 0 and abs(value) < 1e-4:
        return "under 0.01%"
    return f"{figures(100 * value, 2 if abs(value) < 1 else 3)}%"


def change(ratio: float) -> str:
    """What a ratio changes: 1.1 is +10%."""
    if not ratio < LARGEST:
        return f"more than {LARGEST:.0f}×"
    delta = 100 * (ratio - 1)
    text = f"{abs(delta):.0f}" if abs(delta) >= 20 else f"{abs(delta):.1f}"
    sign = "" if float(text) == 0 else MINUS if delta < 0 else "+"
    return f"{sign}{text}%"


def tick(ratio: float) -> str:
    """A round ratio on an axis, as a change without needless zeros."""
    return f"{100 * (ratio - 1):+.3g}%".replace("-", MINUS)


def interval(value: Interval | None) -> str:
    """The bounds of a ratio as changes."""
    return "not measured" if value is None else f"{change(value.low)} to {change(value.high)}"


def scientific(value: float) -> str:
    """An error, as 1.5 × 10⁻⁶."""
    if value == 0 or not math.isfinite(value):
        return figures(value)
    exponent = math.floor(math.log10(abs(value)))
    power = str(exponent).replace("-", "⁻").translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{value / 10**exponent:.1f}{NARROW}×{NARROW}10{power}"


def moment(text: str) -> str:
    """An ISO time as a date that nobody can mistake; what is no ISO time stays as it is."""
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{at.day} {at:%B %Y, %H:%M} {at.tzname() or ''}".rstrip()


def sentence(text: str) -> str:
    """A sentence with real minus signs before its numbers."""
    return "".join(
        MINUS if c == "-" and text[at + 1 : at + 2].isdigit() and not text[at - 1 : at].isalnum() else c for at, c in enumerate(text)
    )


def word(value: object) -> str:
    """A knob's value as the configuration file writes it, without quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)
