"""Wherever data goes in, an image is paired with its own label: by position, whatever the index says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_likes import Labelled
from hypothesis import given
from hypothesis import strategies as st
from op_checks import some

import tinygrad_mnist as tg

RNG = np.random.default_rng


def as_pandas(values: Any) -> Any:
    pd = pytest.importorskip("pandas")
    index = RNG(1).permutation(len(values))
    return pd.Series(values, index=index) if values.ndim == 1 else pd.DataFrame(values, index=index)


def as_nullable(values: Any) -> Any:
    return as_pandas(values).convert_dtypes()


ALIKE: dict[str, Callable[[Any], Any]] = {
    "hostile index": Labelled,
    "list": lambda values: values.tolist(),
    "Tensor": tg.Tensor,
    "pandas": as_pandas,
    "nullable": as_nullable,
}


def learned(x: Any, labels: Any) -> Any:
    w = tg.Tensor(np.eye(3), requires_grad=True)
    loss, grads = tg.parallel.value_and_grad(
        lambda a, b, rng: tg.cross_entropy(tg.matmul(a, w), b), {"w": w}, x, labels, shard_size=2
    )
    return loss, grads["w"].tolist()


ENTRANCES: dict[str, Callable[[Any, Any], Any]] = {
    "accuracy": lambda x, labels: tg.training.accuracy(tg.Tensor, x, labels),
    "predict": lambda x, labels: tg.training.predict(tg.Tensor, x).tolist(),
    "evaluate": lambda x, labels: tg.training.evaluate(tg.Tensor, x, labels),
    "hold_out": lambda x, labels: [part.tolist() for part in tg.data.hold_out(labels, 2, RNG(0))],
    "cross_entropy": lambda x, labels: tg.cross_entropy(np.asarray(x), labels).item(),
    "map_shards": lambda x, labels: [
        float((a.sum(axis=1) * b).sum())
        for a, b in tg.parallel.map_shards(lambda i, a, b: (a, b), x, labels, shard_size=2)
    ],
    "value_and_grad": learned,
    "encode_idx": lambda x, labels: tg.data.encode_idx(labels).hex(),
}


@pytest.mark.parametrize("alike", ALIKE)
@pytest.mark.parametrize("entrance", ENTRANCES)
@some
@given(st.integers(3, 7), st.integers(0, 99))
def test_rows_and_labels_are_paired_by_position(entrance: str, alike: str, n: int, seed: int) -> None:
    x, labels = RNG(seed).normal(size=(n, 3)), RNG(seed).integers(0, 3, n)
    if entrance == "encode_idx":
        labels = labels.astype(np.int32)
        if alike in ("list", "nullable"):
            return  # which have no int32
    expected = ENTRANCES[entrance](x, labels)
    images = ALIKE[alike](x) if alike != "nullable" else as_pandas(x)  # whole numbers would become integers
    assert ENTRANCES[entrance](images, ALIKE[alike](labels)) == expected


def test_images_of_any_kind_are_converted() -> None:
    images = RNG(0).integers(0, 256, (3, 5, 4), np.uint8)
    for alike in (Labelled(images), memoryview(images), tg.Tensor(images)):
        np.testing.assert_array_equal(tg.data.as_input(alike), tg.data.as_input(images))
        np.testing.assert_array_equal(tg.data.augment(alike, RNG(0)), tg.data.augment(images, RNG(0)))


@pytest.mark.parametrize(
    "wrong", [None, {}, {1, 2}, "ab", ["a", "b"], [[1], [1, 2]], np.ma.masked_array([0, 1], [0, 1])]
)
@pytest.mark.parametrize("entrance", [name for name in ENTRANCES if name not in ("cross_entropy", "predict")])
def test_labels_that_cannot_be_converted_are_refused_by_name(entrance: str, wrong: Any) -> None:
    with pytest.raises(
        TypeError, match=rf"^{entrance}: (labels|array|array 1 of the batch), of type {type(wrong).__name__}, "
    ):
        ENTRANCES[entrance](np.ones((2, 3)), wrong)


def test_labels_of_several_axes_are_not_held_out() -> None:
    with pytest.raises(ValueError, match=r"hold_out: labels have shape \(4, 2\)"):
        tg.data.hold_out(np.eye(4)[:, :2], 1, RNG(0))


MASKED = np.ma.masked_array([0.0, 1.0, 2.0], [False, True, False])
MASK_USES: dict[str, Callable[[], Any]] = {
    "exp": lambda: tg.exp(MASKED),
    "mul": lambda: tg.Tensor([1.0, 2.0, 3.0]) * MASKED,
    "cross_entropy": lambda: tg.cross_entropy(np.zeros((3, 3)), MASKED.astype(int)),
    "Tensor": lambda: tg.Tensor(MASKED),
    "Buffer": lambda: tg.nn.Buffer(MASKED),
    "load_state_dict": lambda: tg.nn.load_state_dict({"a": tg.Tensor(np.zeros(3))}, {"a": MASKED}),
}


@pytest.mark.parametrize("use", MASK_USES)
def test_masked_values_are_not_computed_with(use: str) -> None:
    with pytest.raises(TypeError, match="cannot compute with masked values"):
        MASK_USES[use]()
    assert tg.exp(np.ma.masked_array([0.0])).item() == 1.0  # none of them is masked


@pytest.mark.parametrize("door", ["accuracy", "evaluate"])
def test_labels_that_are_missing_are_refused(door: str) -> None:
    with pytest.raises(ValueError, match=f"^{door}: labels hold NaN"):
        ENTRANCES[door](np.ones((2, 3)), [1.0, np.nan])
