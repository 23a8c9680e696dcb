"""From the stored results to numbers with their noise, and from those to verdicts.

Noise is what another run would be expected to differ by: the seeds' spread, as a 90 % prediction interval (Student's
t), but no less than what a single run shows on its own: the binomial error of an accuracy on so many images, or the
error of a mean of so many losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .experiments import CANDIDATES, NOTHING, TARGETS, Claim, Experiment, Figure, candidate_variant

Result = Mapping[str, Any]  # of one run, as it is stored
Results = Mapping[str, Sequence[Result]]  # of each variant, by seed
REPRODUCED, NOT_REPRODUCED, WITHIN_NOISE, NOT_MEASURED = "reproduced", "not reproduced", "within noise", "not measured"
STUDENT = (
    6.314,
    2.920,
    2.353,
    2.132,
    2.015,
    1.943,
    1.895,
    1.860,
    1.833,
)  # 95 % quantiles of Student's t, for 1 to 9 degrees of freedom
NORMAL = 1.645  # that of the normal distribution


class Measured(NamedTuple):
    """One quantity over the seeds."""

    values: tuple[float, ...]
    floor: float  # standard error of a single run, from itself
    failed: int = 0  # further runs, which did not get so far

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def deviation(self) -> float:
        """Standard deviation over the seeds; 0 for a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0

    @property
    def noise(self) -> float:
        """How far one more run is from the mean, at most, nine times in ten."""
        return max(self._half * math.sqrt(1 + 1 / len(self.values)), NORMAL * self.floor)

    @property
    def error(self) -> float:
        """How far the mean is from that of very many runs, at most, nine times in ten."""
        return max(self._half, NORMAL * self.floor) / math.sqrt(len(self.values))

    @property
    def _half(self) -> float:
        count = len(self.values)
        return STUDENT[min(count - 1, len(STUDENT)) - 1] * self.deviation if count > 1 else 0.0


def step_weights(result: Result) -> np.ndarray:
    """How much the loss of each step counts in a mean: as its batch is large; the last of an epoch may be smaller."""
    weights = np.ones(len(result["losses"]))
    weights[result["steps_per_epoch"] - 1 :: result["steps_per_epoch"]] = result.get("last_batch", 1.0)
    return weights


def one(result: Result, measure: str) -> tuple[float, float] | None:
    """Value of a measure in one run, and its standard error; None if the run ended before (or did not have it).

    A run that failed has no weights to test: no image is right.
    """
    kind, _, at = measure.partition("@")
    if kind == "fall":
        first = result["losses"][: result["steps_per_epoch"]]
        if len(first) < result["steps_per_epoch"]:
            return None
        tenth = first[-max(1, len(first) // 10) :]
        mean = np.average(tenth, weights=step_weights(result)[: len(first)][-len(tenth) :])
        return float(mean) / first[0], float(np.std(tenth)) / first[0] / math.sqrt(len(tenth))
    if kind == "drop":
        first_epoch, later = one(result, "mean_loss@1"), one(result, f"mean_loss@{at}")
        if first_epoch is None or later is None:
            return None
        ratio = later[0] / first_epoch[0]
        return ratio, ratio * math.hypot(later[1] / later[0], first_epoch[1] / first_epoch[0])
    if kind == "mean_loss":
        epoch = slice((int(at) - 1) * result["steps_per_epoch"], int(at) * result["steps_per_epoch"])
        losses = result["losses"][epoch]
        if len(losses) < result["steps_per_epoch"]:
            return None
        change = np.diff(losses) if len(losses) > 1 else np.zeros(1)  # a trend is no noise
        mean = np.average(losses, weights=step_weights(result)[epoch])
        return float(mean), float(np.std(change) / math.sqrt(2 * len(losses)))
    if not at:
        value, images = 0.0 if result["failed"] else result[kind], result["test_images"]
    else:
        row: Mapping[str, Any] = next((row for row in result["history"] if row["epoch"] == int(at) - 1), {})
        value, images = row.get(kind), result["measured_images"]
    return None if value is None else (value, math.sqrt(value * (1 - value) / images))


def measured(results: Results, variant: str, measure: str) -> Measured | None:
    """Collect a measure of a variant over the seeds; None if no run has it."""
    found = by_seed(results, variant, measure).values()
    failed = sum(bool(result["failed"]) for result in results.get(variant, ()) if one(result, measure) is None)
    return Measured(tuple(value for value, _ in found), max(error for _, error in found), failed) if found else None


def figure_verdict(figure: Figure, results: Results) -> str:
    """Whether one more run could give the paper's number."""
    ours = measured(results, figure.variant, figure.measure)
    if ours is None:
        return NOT_MEASURED
    return WITHIN_NOISE if abs(figure.paper - ours.mean) <= ours.noise else NOT_REPRODUCED


def claim_verdict(claim: Claim, results: Results) -> str:
    """Verdict on all comparisons of a claim.

    Reproduced if each holds by more than noise, not reproduced if one fails by more, else within noise.
    """
    found = [margin for measure in claim.measures for margin in margins(claim, measure, results).values()]
    known = [margin for margin in found if margin is not None]
    if not known or len(known) < len(found):
        return NOT_MEASURED
    if any(holds < -error for holds, error in known):
        return NOT_REPRODUCED
    return REPRODUCED if all(holds > error for holds, error in known) else WITHIN_NOISE


def margins(claim: Claim, measure: str, results: Results) -> dict[str, tuple[float, float] | None]:
    """By how much a claim holds (negative: it fails) and the noise of that, by the variant it is compared with.

    A claim with limits has one entry, named "".
    """
    if claim.within is not None:
        ours = measured(results, claim.variant, measure)
        return {
            "": None if ours is None else (min(ours.mean - claim.within[0], claim.within[1] - ours.mean), ours.error)
        }
    found: dict[str, tuple[float, float] | None] = {}
    for other in claim.than:
        first, second = (by_seed(results, variant, measure) for variant in (claim.variant, other))
        pairs = [(first[seed], second[seed]) for seed in first if seed in second]
        if pairs:
            floor = max(math.hypot(a[1], b[1]) for a, b in pairs)
            difference = Measured(tuple(claim.sign * (a[0] - b[0]) for a, b in pairs), floor)
        found[other] = (difference.mean, difference.error) if pairs else None
    return found


def by_seed(results: Results, variant: str, measure: str) -> dict[int, tuple[float, float]]:
    """Collect a measure of a variant, with its standard error, by seed."""
    found = ((result["config"]["seed"], one(result, measure)) for result in results.get(variant, ()))
    return {seed: pair for seed, pair in found if pair is not None}


def experiment_verdict(experiment: Experiment, results: Results) -> str:
    """One word for all claims of an experiment: the worst of theirs."""
    found = [claim_verdict(claim, results) for claim in experiment.claims]
    return next((word for word in (NOT_MEASURED, NOT_REPRODUCED, WITHIN_NOISE) if word in found), REPRODUCED)


class Explained(NamedTuple):
    """What a candidate explanation does to a target."""

    ours: Measured | None  # with the mistake
    closed: float  # share of the gap between our figure and the paper's that it closes; above 1: it goes too far
    verdict: str


def explained(candidate: str, target: str, results: Results) -> Explained:
    """Compare a run with a mistake of the listings with the paper's figure and with a run without mistakes."""
    _, _, measure, paper = TARGETS[target]
    ours, right = (measured(results, candidate_variant(name, target), measure) for name in (candidate, NOTHING))
    runs = results.get(candidate_variant(candidate, target), ())
    if right is None or not runs:
        return Explained(None, math.nan, NOT_MEASURED)
    if any(result["failed"] for result in runs):
        return Explained(ours, math.nan, "training fails")
    if ours is None:
        return Explained(None, math.nan, NOT_MEASURED)
    gap, shift, noise = paper - right.mean, ours.mean - right.mean, max(ours.noise, right.noise)
    if abs(gap) <= right.noise:
        return Explained(ours, math.nan, "nothing to explain" if abs(paper - ours.mean) <= noise else "leads away")
    if abs(shift) <= noise or shift / gap < 0.5:  # another seed could do as much; or it is less than half of the way
        return Explained(ours, shift / gap, "does not")
    if shift / gap > 1.5:
        return Explained(ours, shift / gap, "goes far beyond it")
    return Explained(ours, shift / gap, "brings it back" if abs(paper - ours.mean) <= noise else "goes towards it")


def conclusion(results: Results) -> str:
    """Say in words which candidate brings which of the paper's figures back."""
    sentences = []
    for target in TARGETS:
        run = {name: word for name in CANDIDATES if (word := explained(name, target, results).verdict) != NOT_MEASURED}
        if not run:
            continue
        words = {
            "brings it back": "is brought back by {}",
            "goes towards it": "is approached (half of the way or more) by {}",
            "goes far beyond it": "with {}, ours goes far beyond it",
            "training fails": "with {}, training fails",
        }
        parts = [
            said.format(", ".join(name for name, word in run.items() if word == verdict))
            for verdict, said in words.items()
            if verdict in run.values()
        ]
        if set(run.values()) & {"nothing to explain", "leads away"}:
            parts = ["needs no explanation: ours agrees within noise"]
        elif not set(run.values()) & {"brings it back", "goes towards it"}:
            parts.insert(0, f"is explained by none of the {len(run)} candidates")
        sentences.append(f"“{target}” {'; '.join(parts)}.")
    return " ".join(sentences)
