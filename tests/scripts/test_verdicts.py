"""Verdicts follow from the stored numbers.

Claims, figures and explanations of known outcome, and noise that covers what it says.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reproduction import report, verdicts
from reproduction.experiments import CANDIDATES, NOTHING, TARGETS, Claim, Figure, candidate_variant
from reproduction.verdicts import NOT_MEASURED, NOT_REPRODUCED, REPRODUCED, WITHIN_NOISE, Measured


def fake(
    accuracy: float | None = 0.99, losses: Any = (1.0,), per_epoch: int = 1, seed: int = 0, **more: Any
) -> dict[str, Any]:
    """A result, as far as verdicts look at it."""
    return {
        "config": {"seed": seed},
        "test_accuracy": accuracy,
        "test_images": 10_000,
        "measured_images": 1000,
        "losses": list(losses),
        "steps_per_epoch": per_epoch,
        "history": [],
        "failed": "",
        **more,
    }


def better(first: list[float], second: list[float], sign: int = 1) -> str:
    results = {name: [fake(x, seed=i) for i, x in enumerate(values)] for name, values in (("a", first), ("b", second))}
    return verdicts.claim_verdict(Claim("", "a", ("test_accuracy",), ("b",), sign), results)


ACCURACIES = st.lists(st.floats(0.9, 1.0), min_size=1, max_size=4)


@given(ACCURACIES, st.data())
def test_a_claim_holds_if_its_opposite_fails(first: list[float], data: Any) -> None:
    second = data.draw(st.lists(st.floats(0.9, 1.0), min_size=len(first), max_size=len(first)))
    opposite = {REPRODUCED: NOT_REPRODUCED, NOT_REPRODUCED: REPRODUCED, WITHIN_NOISE: WITHIN_NOISE}
    assert better(second, first) == better(first, second, sign=-1) == opposite[better(first, second)]
    assert better(first, first) == WITHIN_NOISE
    shared = data.draw(st.permutations(range(len(first))))
    assert better([first[i] for i in shared], [second[i] for i in shared]) == better(first, second), (
        "the order of seeds"
    )


def test_claims_of_known_outcome() -> None:
    assert better([0.99, 0.991, 0.992], [0.95, 0.951, 0.952]) == REPRODUCED
    assert better([0.99, 0.991, 0.992], [0.9899, 0.9912, 0.9919]) == WITHIN_NOISE
    assert better([0.99, 0.95, 0.97], [0.96, 0.98, 0.95]) == WITHIN_NOISE, "the seeds disagree"
    assert better([0.99], [0.9885]) == WITHIN_NOISE and better([0.99], [0.97]) == REPRODUCED, (
        "one seed: the binomial error"
    )
    assert better([], [0.9]) == NOT_MEASURED
    some = {"a": [fake(0.99, seed=0), fake(0.9, seed=2)], "b": [fake(0.99, seed=1), fake(0.9, seed=2)]}
    assert verdicts.claim_verdict(Claim("", "a", ("test_accuracy",), ("b",)), some) == WITHIN_NOISE, (
        "compared seed by seed: 0.9 with 0.9"
    )
    for values, verdict in (
        ([0.998, 0.9981], REPRODUCED),
        ([0.9959, 0.9961], WITHIN_NOISE),
        ([0.98, 0.9801], NOT_REPRODUCED),
    ):
        results = {"a": [fake(x, seed=i) for i, x in enumerate(values)]}
        assert verdicts.claim_verdict(Claim("", "a", ("test_accuracy",), within=(0.996, math.inf)), results) == verdict
    flat = {"a": [fake(losses=np.repeat([2.0, 1.5, 0.9], 50) + 0.01 * np.tile([1, -1], 75), per_epoch=50)]}
    for measures, limits, verdict in (
        (("mean_loss@2",), (1.4, 1.6), REPRODUCED),
        (("mean_loss@2", "mean_loss@3"), (0.8, 1.6), REPRODUCED),
        (("mean_loss@2", "mean_loss@3"), (1.4, 1.6), NOT_REPRODUCED),
        (("mean_loss@3",), (0.9, 1.0), WITHIN_NOISE),
        (("mean_loss@4",), (0.0, 9.0), NOT_MEASURED),
        (("mean_loss@1",), (0.9, 1.0), NOT_REPRODUCED),
        (("drop@2",), (0.7, 0.8), REPRODUCED),
    ):
        assert verdicts.claim_verdict(Claim("", "a", measures, within=limits), flat) == verdict


@given(st.lists(st.floats(0.5, 0.999), min_size=3, max_size=3), st.floats(0, 1))
def test_a_figure_is_within_noise_as_students_t_says(values: list[float], paper: float) -> None:
    results = {"a": [fake(x, seed=i) for i, x in enumerate(values)]}
    spread = 2.920 * np.std(values, ddof=1) * math.sqrt(4 / 3)
    binomial = max(1.645 * math.sqrt(x * (1 - x) / 10_000) for x in values)
    distance, noise = abs(paper - np.mean(values)), max(spread, binomial)
    verdict = verdicts.figure_verdict(Figure("a", "test_accuracy", paper), results)
    assert (
        verdict == (WITHIN_NOISE if distance <= noise else NOT_REPRODUCED)
        or abs(distance - noise) < 1e-3 * noise + 1e-9
    )
    assert verdicts.figure_verdict(Figure("b", "test_accuracy", paper), results) == NOT_MEASURED


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_noise_covers_nine_of_ten_further_runs(seeds: int) -> None:
    draws = np.random.default_rng(seeds).standard_normal((20_000, seeds + 1))
    inside = [
        abs(row[-1] - measured.mean) <= measured.noise for row in draws if (measured := Measured(tuple(row[:-1]), 0.0))
    ]
    assert np.mean(inside) == pytest.approx(0.9, abs=0.008)


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 2**32 - 1), st.sampled_from([None, 1.0, 0.25]))
def test_measures_are_those_of_the_stored_numbers(per_epoch: int, epochs: int, seed: int, last: float | None) -> None:
    losses = np.random.default_rng(seed).uniform(0.5, 2.5, (epochs, per_epoch))
    rows = [{"epoch": e, "train_accuracy": 0.9 + e / 100, "test_accuracy": 0.8 + e / 100} for e in range(epochs + 1)]
    more = {} if last is None else {"last_batch": last}  # which the first results lack
    result = fake(losses=losses.ravel().tolist(), per_epoch=per_epoch, history=rows, **more)
    sizes = np.array([4.0] * (per_epoch - 1) + [4.0 * (last or 1)])
    for epoch in range(1, epochs + 1):
        value, error = verdicts.one(result, f"mean_loss@{epoch}")
        assert value == pytest.approx(losses[epoch - 1] @ sizes / sizes.sum()) and error >= 0
        assert verdicts.one(result, f"test_accuracy@{epoch}")[0] == 0.8 + (epoch - 1) / 100, (
            "before the epoch, as the paper counts"
        )
    assert (
        verdicts.one(result, f"mean_loss@{epochs + 1}") is None
        and verdicts.one(result, f"test_accuracy@{epochs + 2}") is None
    )
    tenth = slice(-max(1, per_epoch // 10), None)
    mean = losses[0][tenth] @ sizes[tenth] / sizes[tenth].sum()
    assert verdicts.one(result, "fall")[0] == pytest.approx(mean / losses[0, 0])
    assert verdicts.one(fake(losses=[], per_epoch=3), "fall") is None


@pytest.mark.parametrize(
    "value, verdict",
    [
        (1.95, "brings it back"),
        (1.6, "goes towards it"),
        (1.2, "does not"),
        (0.5, "does not"),
        (3.5, "goes far beyond it"),
        (None, "training fails"),
    ],
)
def test_an_explanation_is_judged_by_what_it_does_to_the_gap(value: float | None, verdict: str) -> None:
    target, candidate = next(iter(TARGETS)), next(iter(CANDIDATES))
    noisy = 0.01 * np.tile([1, -1], 25)

    def run(loss: float) -> dict[str, Any]:
        return fake(losses=np.concatenate([np.full(200, 2.2), loss + noisy]), per_epoch=50)

    results = {candidate_variant(NOTHING, target): [run(0.9), {**run(0.91), "config": {"seed": 1}}]}
    assert verdicts.conclusion(results) == ""
    results[candidate_variant(candidate, target)] = [
        fake(failed="step 3: the loss is nan") if value is None else run(value)
    ]
    found = verdicts.explained(candidate, target, results)
    assert found.verdict == verdict
    assert value is None or found.closed == pytest.approx((value - 0.905) / (1.95 - 0.905), abs=1e-3)
    said = verdicts.conclusion(results)
    assert (candidate in said) == (verdict != "does not")
    assert ("by none of the 1 candidates" in said) == (verdict not in ("brings it back", "goes towards it"))


def test_what_another_seed_could_do_explains_nothing() -> None:
    target = "learning rate 3e-5: final accuracy"
    results = {candidate_variant(NOTHING, target): [fake(x, seed=i) for i, x in enumerate((0.171, 0.138, 0.322))]}
    for values in ((0.34, 0.34, 0.34), (0.3, 0.4, 0.3), (0.45,)):
        results[candidate_variant("float64", target)] = [fake(x, seed=i) for i, x in enumerate(values)]
        assert verdicts.explained("float64", target, results).verdict == "does not"
    results[candidate_variant("float64", target)] = [
        fake(0.64),
        fake(0.66, seed=1),
        fake(None, seed=2, failed="step 3"),
    ]
    assert verdicts.explained("float64", target, results).verdict == "training fails"
    results[candidate_variant("float64", target)].pop()
    assert verdicts.explained("float64", target, results).verdict == "brings it back"


def test_runs_that_fail_are_counted() -> None:
    failed = fake(None, [2.0, 1.0], 4, seed=1, failed="step 3: the loss is nan")
    whole = fake(losses=[2.0, 1.0, 1.0, 0.9], per_epoch=4)
    results = {"5e-2": [fake(0.98), failed, {**failed, "config": {"seed": 2}}], "a": [whole, failed]}
    assert verdicts.measured(results, "5e-2", "test_accuracy").values == (0.98, 0.0, 0.0)
    assert verdicts.one(failed, "fall") is None and verdicts.one(failed, "mean_loss@1") is None
    assert verdicts.measured(results, "a", "mean_loss@1").failed == 1
    assert "; 1 failed" in report.numbers(verdicts.measured(results, "a", "mean_loss@1"), "mean_loss@1")[2]


def test_where_there_is_no_gap_nothing_is_explained() -> None:
    target = "6 convolutions: mean loss of epoch 1"
    losses = TARGETS[target][3] + 0.5 * np.random.default_rng(0).standard_normal(120)
    results = {candidate_variant(name, target): [fake(losses=losses, per_epoch=120)] for name in (NOTHING, "float64")}
    assert verdicts.explained("float64", target, results).verdict == "nothing to explain"
    assert "needs no explanation" in verdicts.conclusion(results)
