"""ADOPT, KEEP DEFAULT or INCONCLUSIVE: what the held-out race entitles anyone to say. The default wins ties."""

from __future__ import annotations

from collections.abc import Sequence

from openinfer.profiles.study_record import Interval, SloCheck, Verdict, VerdictKind
from openinfer.tuner.statistics import CONFIDENCE


def judge(
    ratio: Interval | None,
    noise_floor: float,
    *,
    objective: str,
    unit: str = "ns",
    output_passed: bool = True,
    slos: Sequence[SloCheck] = (),
    nothing: str = "the search found no configuration that looked faster",
    confidence: float = CONFIDENCE,
) -> Verdict:
    """The verdict on the winner of the search, decided on held-out traffic only.

    `ratio` is winner ÷ default of the objective, None where there is no winner, and `nothing` says why. `noise_floor` is the gain that
    identical arms could show. `output_passed` is about the winner's answers. `slos` holds the checks of both arms, named "default" and
    "winner".
    """

    def verdict(kind: VerdictKind, reason: str) -> Verdict:
        return Verdict(kind, f"{kind}: {reason}", objective, unit, ratio, confidence)

    if ratio is None:
        return verdict("KEEP DEFAULT", nothing)
    if not output_passed:
        return verdict("KEEP DEFAULT", "the winner of the search gave answers outside the tolerance")
    broken = _newly_broken(slos)
    if broken:
        return verdict("KEEP DEFAULT", f"the winner of the search breaks {broken}, which the default is not shown to break")
    gain = 1 - ratio.estimate
    text = f"{objective} changes by {_percent(ratio.estimate)} ({confidence:.0%} interval {_percent(ratio.low)} to {_percent(ratio.high)})"
    if ratio.high < 1 and gain > noise_floor:
        return verdict("ADOPT", f"{text} on held-out traffic; identical arms could show a gain of up to {noise_floor:.1%}")
    if ratio.high < 1:
        return verdict("KEEP DEFAULT", f"{text}, which is not above the noise floor of {noise_floor:.1%}")
    if ratio.low > 1:
        return verdict("KEEP DEFAULT", f"{text} on held-out traffic: the default is faster")
    if ratio.low > 1 - noise_floor:
        return verdict("KEEP DEFAULT", f"{text}: any gain is below the noise floor of {noise_floor:.1%}")
    return verdict("INCONCLUSIVE", f"{text}: neither a gain nor its absence is shown; a longer budget or a quieter machine may decide")


def _newly_broken(slos: Sequence[SloCheck]) -> str | None:
    """The first promise that the winner breaks and the default does not."""
    default = {(check.expression, check.scenario): check.status for check in slos if check.arm == "default"}
    for check in slos:
        if check.arm == "winner" and check.status == "not met" and default.get((check.expression, check.scenario)) != "not met":
            return check.expression
    return None


def _percent(ratio: float) -> str:
    return f"{min(ratio - 1, 9.99):+.1%}"
