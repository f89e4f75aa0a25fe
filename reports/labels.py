"""What an arm of the race is called on the page."""

from __future__ import annotations

from openinfer.profiles.study_record import StudyRecord


def arm_label(record: StudyRecord, name: str) -> str:
    """ "winner" is a claim that only ADOPT entitles to; without it that arm is the best candidate."""
    return "best candidate" if name == "winner" and record.verdict.kind != "ADOPT" else name
