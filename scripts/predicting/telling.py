"""What was read in a picture, in words and as JSON."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, NamedTuple

from .reading import Reading, printable

__all__ = ["UNSURE", "answers", "as_json", "as_lines", "short_answer", "title"]

UNSURE = 0.9  # an answer that is less probable is often wrong: see README.md beside predict.py


class Answer(NamedTuple):
    """What a digit is read as."""

    digit: int
    probability: float
    runner_up: int
    runner_up_probability: float
    unsure: bool
    touching: bool  # the image may hold a part of a neighbour, or several digits
    box: list[int]  # left, top, right, bottom
    probabilities: list[float]  # of 0 to 9


def answers(reading: Reading) -> list[Answer]:
    """The digits of a picture, in the order of reading."""
    if reading.digits is None or reading.probabilities is None:
        return []
    found = []
    for row, box, touching in zip(
        reading.probabilities.tolist(), reading.digits.boxes.tolist(), reading.digits.touching.tolist(), strict=True
    ):
        best, second = sorted(range(10), key=row.__getitem__, reverse=True)[:2]
        row = [round(p, 6) for p in row]
        found.append(Answer(best, row[best], second, row[second], row[best] < UNSURE, touching, box, row))
    return found


def text(found: list[Answer]) -> str:
    """The digits as they stand in the picture: a line for each of its rows."""
    shown = "".join(str(answer.digit) for answer in found[:1])
    for before, after in pairwise(found):
        (left, _, _, bottom), (_, top, right, _) = before.box, after.box
        shown += f"\n{after.digit}" if right <= left or top >= bottom else str(after.digit)
    return shown


def as_json(reading: Reading, weights: str) -> str:
    """One line: the picture's name, its digits as text and one by one, the error if there are none."""
    found = answers(reading)
    about: dict[str, Any] = {"image": reading.name, "text": text(found), "digits": [a._asdict() for a in found]}
    return json.dumps({**about, "error": reading.problem or None, "weights": weights})


def title(reading: Reading) -> str:
    """What people call a picture."""
    return "standard input" if reading.name == "-" else printable(reading.name)


def short_answer(answer: Answer) -> str:
    """What a digit is read as, and what it might be."""
    numbers = f"{answer.probability:.2f}; next {answer.runner_up}, {answer.runner_up_probability:.2f}"
    return f"{answer.digit} ({numbers}){', unsure' * answer.unsure}"


def as_lines(reading: Reading) -> str:
    """One line for a digit, a line more for each where there are several."""
    name, found = title(reading), answers(reading)
    note = ", touches a neighbour, or is several"
    if len(found) == 1:
        return f"{name}: {short_answer(found[0])}{note * found[0].touching}"
    lines = [f"{name}: {text(found).replace(chr(10), ' / ')} ({len(found)} digits)"]
    for answer in found:
        left, top, right, bottom = answer.box
        where = f"x {left} to {right}, y {top} to {bottom}"
        lines.append(f"  {short_answer(answer)}, at {where}{note * answer.touching}")
    return "\n".join(lines)
