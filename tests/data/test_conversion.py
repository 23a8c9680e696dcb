"""What is array-like is converted by position; what cannot be converted is refused by name."""

import array
import re

import numpy as np
import pytest
from array_likes import Labelled
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import tinygrad_mnist as tg
from tinygrad_mnist.data.conversion import as_array

NUMBERS = st.sampled_from([np.uint8, np.int8, np.int32, np.int64, np.float16, np.float32, np.float64, np.bool_])


@given(NUMBERS.flatmap(lambda dtype: arrays(dtype, array_shapes(max_dims=3, max_side=4))))
def test_what_is_array_like_keeps_its_values_positions_and_dtype(values):
    for alike in (values, tg.Tensor(values), Labelled(values), memoryview(values), np.ma.masked_array(values)):
        found = as_array("caller", "name", alike)
        assert type(found) is np.ndarray and found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)
    assert as_array("caller", "name", values) is values
    for nested in (values.tolist(), tuple(values)):
        np.testing.assert_array_equal(as_array("caller", "name", nested), values)


def test_a_buffer_of_python_is_an_array():
    np.testing.assert_array_equal(as_array("caller", "name", array.array("h", [3, -1])), [3, -1])
    np.testing.assert_array_equal(as_array("caller", "name", range(3)), [0, 1, 2])


class Sparse:
    def toarray(self):
        return np.eye(2)


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise KeyError("lost")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (None, "object"),
        ("345", "<U3"),
        (b"345", "S3"),
        ({0: 1}, "read by NumPy as object"),
        ({1, 2}, "read by NumPy as object"),
        ((i for i in range(3)), "read by NumPy as object"),
        ([[1], [1, 2]], "inhomogeneous"),
        (["3", "4"], "<U1"),
        ([1, None], "object"),
        ([2**70], "object"),
        (np.array([1, 2], object), "object"),
        (np.array([1j]), "complex128"),
        (np.array(["2020-01-01"], "M8[D]"), "datetime64"),
        (np.array([(1, 2)], "i4,i4"), "i4"),
        (np.ma.masked_array([1, 2], [0, 1]), "masked"),
        ([np.ma.masked_array([1, 2], [0, 1])], "masked"),
        (tg.Tensor([1.0], requires_grad=True), ".detach()"),
        ([tg.Tensor(1.0, requires_grad=True)], ".detach()"),
        (Sparse(), ".toarray()"),
        (Broken(), "lost"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(wrong, why):
    with pytest.raises(TypeError, match=rf"^caller: labels, of type .*{re.escape(why)}"):
        as_array("caller", "labels", wrong)


def test_pandas():
    pd = pytest.importorskip("pandas")
    for dtype in ("int64", "float32", "Int64", "Float64", "boolean", "Sparse[int]"):
        series = pd.Series([1, 0, 1], index=[2, 0, 1], dtype=dtype)
        found = as_array("caller", "labels", series)
        assert found.dtype.kind == {"I": "i", "F": "f", "S": "i"}.get(dtype[0], dtype[0])
        np.testing.assert_array_equal(found, [1, 0, 1])
    frame = pd.DataFrame({"b": [1, 2], "a": [0.5, 4]}, index=[1, 0])
    for table in (frame, frame.convert_dtypes()):
        np.testing.assert_array_equal(as_array("caller", "images", table), [[1, 0.5], [2, 4]])
    for wrong, why in [
        (pd.Series([1, None], dtype="Int64"), "NA"),
        (pd.DataFrame({"a": pd.array([0.5, None], "Float64")}), "NA"),
        (pd.Series([3, 4], dtype="category"), "categories"),
        (pd.Series(["3", "4"]), "is read by NumPy as object"),
        (pd.DataFrame({"a": [1], "b": ["x"]}), "is read by NumPy as object"),
        (pd.Series(pd.to_datetime(["2020-01-01"])), "datetime64"),
    ]:
        with pytest.raises(TypeError, match=f"caller: labels.*{why}"):
            as_array("caller", "labels", wrong)


def test_torch():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(as_array("caller", "labels", torch.arange(3)), [0, 1, 2])
    for wrong in (torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16)):
        with pytest.raises(TypeError, match="caller: labels, of type Tensor"):
            as_array("caller", "labels", wrong)
