"""The threads of ops, in C and in Python: they change no bit, and disturb neither forks nor other threads."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist.kernels import Geometry, compiled, machine, products, reference, threads

Array = npt.NDArray[Any]
needs_kernels = pytest.mark.skipif(compiled.LIBRARY is None, reason=f"native kernels: {compiled.REASON}")
levels = pytest.mark.parametrize("level", range(compiled.LIBRARY.highest_level() + 1 if compiled.LIBRARY else 1))


@contextmanager
def on_threads(count: int, worth: float = 1) -> Iterator[None]:
    """Use `count` threads, also for convolutions of few multiplications."""
    least = ctypes.c_double.in_dll(compiled.LIBRARY, "worth_a_thread")
    before = least.value
    least.value = worth
    try:
        with patch.object(compiled, "op_threads", lambda: count):
            yield
    finally:
        least.value = before


def convolutions(library: Any, x: Array, w: Array, bias: Array, g: Array, window: Geometry) -> list[bytes]:
    return [
        library.conv_output(x, w, bias, window).tobytes(),
        library.conv_input(g, w, window, x.shape[2:]).tobytes(),
        library.conv_weight(x, g, window, w.shape[2:]).tobytes(),
    ]


@needs_kernels
@levels
@given(
    st.sampled_from([1, 2, 7, 16, 20, 32, 64, 130]),
    st.sampled_from([1, 3, 4, 8, 20]),
    st.sampled_from([1, 2, 5, 8, 17]),
    st.tuples(st.integers(3, 24), st.integers(3, 24)),
    st.sampled_from([(3, 3), (1, 1), (2, 3)]),
    st.sampled_from([(1, 1), (2, 1), (2, 2)]),
    st.integers(0, 2**32 - 1),
)
def test_no_bit_depends_on_the_number_of_threads(
    level: int, n: int, c: int, f: int, size: Any, kernel: Any, stride: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    window = Geometry(stride, (1, 0))
    x, w, bias = (rng.standard_normal(shape, np.float32) for shape in ((n, c, *size), (f, c, *kernel), (f,)))
    x[rng.random(x.shape) < 0.3] = 0
    g = rng.standard_normal((n, f, *window.output_size(size, kernel)), np.float32)
    with patch.object(compiled, "LEVEL", level):
        with on_threads(1):
            expected = convolutions(compiled, x, w, bias, g, window)
        for threads in (2, 3, 7):
            with on_threads(threads):
                assert convolutions(compiled, x, w, bias, g, window) == expected


@needs_kernels
@levels
@given(
    st.sampled_from([3, 7, 8, 31, 64]),
    st.integers(1, 20),
    st.integers(12, 20),
    st.sampled_from([((2, 2), Geometry((2, 2))), ((3, 3), Geometry((2, 2), (1, 1))), ((2, 3), Geometry((1, 4)))]),
    st.integers(0, 2**32 - 1),
)
def test_no_bit_of_pooling_relu_and_sums_depends_on_the_number_of_threads(
    level: int, n: int, c: int, side: int, pooling: Any, seed: int
) -> None:
    kernel, window = pooling
    rng = np.random.default_rng(seed)
    x = np.rint(4 * rng.standard_normal((side, c, 3 * side, n), np.float32)).transpose(3, 1, 0, 2)  # some of two parts
    x[rng.random(x.shape) < 0.01] = np.nan
    g = rng.standard_normal((n, c, *window.output_size(x.shape[2:], kernel)), np.float32)

    def results() -> list[bytes]:
        top = compiled.max_pool(x, kernel, window)
        scattered = compiled.max_pool_scatter(g, x, top, kernel, window)
        averages = compiled.average_pool(x, kernel, window)
        shared = compiled.average_pool_gradient(averages, kernel, window, x.shape[2:])
        others = compiled.relu(x), compiled.relu_gradient(scattered, x), compiled.channel_sums(scattered)
        return [array.tobytes() for array in (top, scattered, averages, shared, *others)]

    with patch.object(compiled, "LEVEL", level):
        with on_threads(1):
            expected = results()
        for threads in (2, 3, 5):
            with on_threads(threads):
                assert results() == expected


def large() -> tuple[Array, Array, Array, Array, Geometry]:
    rng = np.random.default_rng(0)
    shapes = (32, 8, 20, 20), (16, 8, 3, 3), (16,), (32, 16, 20, 20)
    x, w, bias, g = (rng.standard_normal(shape, np.float32) for shape in shapes)
    return x, w, bias, g, Geometry((1, 1), (1, 1))


@needs_kernels
def test_callers_on_several_threads_do_not_wait_for_each_other_or_mix_results() -> None:
    case = large()
    with on_threads(3):
        expected = convolutions(compiled, *case)
        with ThreadPoolExecutor(4) as pool:
            assert all(found == expected for found in pool.map(lambda _: convolutions(compiled, *case), range(40)))


@needs_kernels
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # forking is what is tested
def test_a_forked_process_begins_with_a_pool_of_its_own() -> None:
    case = large()
    with on_threads(3):
        expected = convolutions(compiled, *case)
        child = os.fork()
        if not child:
            try:
                same = all(convolutions(compiled, *case) == expected for _ in range(3))
            finally:
                os._exit(0 if same else 1)  # without pytest's end
        assert convolutions(compiled, *case) == expected
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@needs_kernels
def test_no_thread_spins_after_a_call() -> None:
    case = large()
    with on_threads(4):
        convolutions(compiled, *case)
    begun = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - begun < 0.05  # one that spins takes 0.2 s


# NumPy's calls, cut in pieces -----------------------------------------------------------------------------------------
@contextmanager
def dealt(count: int, least: int = 1) -> Iterator[None]:
    """Deal large calls to `count` threads."""
    with patch.object(threads, "op_threads", lambda: count), patch.object(threads, "MANY_PRODUCTS", least):
        threads._pool.cache_clear()
        try:
            yield
        finally:
            threads._pool().shutdown()
            threads._pool.cache_clear()


def orders(x: Array, order: list[int]) -> Array:
    """The same numbers, with the axes in another order in memory."""
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


@given(st.data())
def test_elementwise_calls_give_the_same_bits_on_any_number_of_threads(data: Any) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4)))
    order = data.draw(st.permutations(range(len(shape))))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64, np.int64]))
    x = orders((10 * rng.standard_normal(shape)).astype(dtype), list(order))
    smaller = [1 if data.draw(st.booleans()) else length for length in shape][data.draw(st.integers(0, len(shape))) :]
    y = np.asarray(rng.integers(1, 9, smaller), data.draw(st.sampled_from([dtype, np.float32, np.float64])))
    other = data.draw(st.sampled_from([y, 2, 0.5]))
    masks = np.asarray(y > 4)
    cases: list[tuple[Any, tuple[Any, ...], Any]] = [
        (np.add, (x, other), None),
        (np.multiply, (other, x), None),
        (np.absolute, (x,), None),
        (np.less, (x, other), None),
    ]
    if x.dtype.kind == "f":
        cases += [(reference.relu, (x,), x.dtype), (reference.select, (x, masks), x.dtype)]
    for function, arrays, kind in cases:
        expected = function(*arrays)
        for count in (1, 2, 5):
            with dealt(count):
                found = threads.elementwise(function, *arrays, dtype=kind)
            np.testing.assert_array_equal(found, expected, strict=True)
            np.testing.assert_array_equal(np.signbit(found), np.signbit(expected)) if x.dtype.kind == "f" else None


@given(st.data())
def test_sums_give_the_same_bits_on_any_number_of_threads(data: Any) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4)))
    order = data.draw(st.permutations(range(len(shape))))
    x = orders(np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal(shape, np.float32), list(order))
    axes = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1) | st.sets(st.sampled_from(range(len(shape)))))
    axis, keepdims = tuple(axes) if isinstance(axes, set) else axes, data.draw(st.booleans())
    exact, magnitude = (np.sum(a, axis=axis, keepdims=keepdims) for a in (x.astype(float), np.abs(x.astype(float))))
    found = []
    for count in (1, 2, 3, 5):
        with dealt(count):
            found.append(threads.reduce_sum(x, axis, keepdims))
        assert found[0].tobytes() == found[-1].tobytes() and found[-1].dtype == np.float32
    assert np.shape(found[0]) == np.shape(exact)
    assert (np.abs(found[0] - exact) <= x.size * np.finfo(np.float32).eps * magnitude).all()


@given(
    st.sampled_from([1, 17, 50, 128, 300]),
    st.integers(1, 40),
    st.sampled_from([1, 17, 50, 128, 257]),
    st.booleans(),
    st.sampled_from([np.float32, np.float64]),
)
def test_matrix_products_give_the_same_bits_on_any_number_of_threads(
    m: int, k: int, n: int, transposed: bool, dtype: Any
) -> None:
    rng = np.random.default_rng(m * n + k)
    x = rng.standard_normal((k, m)).astype(dtype).T if transposed else rng.standard_normal((m, k)).astype(dtype)
    y = rng.standard_normal((k, n)).astype(dtype)
    found = []
    with patch.multiple(threads, FEW_PRODUCTS=1, NARROWEST=16):
        for count in (1, 2, 3):
            with dealt(count):
                found.append(threads.matmul(x, y))
            assert found[0].tobytes() == found[-1].tobytes() and found[-1].dtype == dtype
    wide = x.astype(np.longdouble), y.astype(np.longdouble)
    bound = k * np.finfo(dtype).eps * (np.abs(wide[0]) @ np.abs(wide[1]))
    assert found[0].shape == (m, n) and (np.abs(found[0] - wide[0] @ wide[1]) <= bound).all()


@given(
    st.sampled_from([1, 2, 7, 40]),
    st.sampled_from([1, 3, 8]),
    st.integers(1, 9),
    st.tuples(st.integers(3, 16), st.integers(3, 9)),
    st.sampled_from([(3, 3), (1, 1), (2, 3)]),
    st.sampled_from([(1, 1), (2, 1), (1, 2), (3, 2)]),
    st.integers(0, 2**32 - 1),
)
def test_convolutions_in_numpy_give_the_same_bits_on_any_number_of_threads(
    n: int, c: int, f: int, size: Any, kernel: Any, stride: Any, seed: int
) -> None:
    rng, window = np.random.default_rng(seed), Geometry(stride, (1, 0))
    x, w, bias = (rng.standard_normal(shape, np.float32) for shape in ((n, c, *size), (f, c, *kernel), (f,)))
    g = rng.standard_normal((n, f, *window.output_size(size, kernel)), np.float32)
    with patch.object(products, "BLOCK_PRODUCTS", 1):
        found = []
        for count in (1, 2, 3, 7):
            with dealt(count):
                found.append(convolutions(reference, x, w, bias, g, window))
            assert found[-1] == found[0]
        with patch.object(reference, "deal", lambda function, pieces: [function(piece) for piece in reversed(pieces)]):
            assert convolutions(reference, x, w, bias, g, window) == found[0]  # nor on which of them is faster


@pytest.mark.parametrize("shape", [(64, 1, 60, 12), (2, 40, 60, 40)])
def test_convolutions_in_numpy_never_hold_all_that_im2col_copies(shape: Any) -> None:
    """The rows of the images, copied for each column of the kernel, are 2.5 times the images; a block is far less."""
    x, w, window = np.ones(shape, np.float32), np.ones((3, shape[1], 5, 5), np.float32), Geometry((1, 2), (2, 2))
    x = orders(x, [2, 1, 3, 0])
    g = reference.conv_output(x, w, None, window)
    calls = (
        lambda: reference.conv_output(x, w, None, window),
        lambda: reference.conv_input(g, w, window, x.shape[2:]),
        lambda: reference.conv_weight(x, g, window, w.shape[2:]),
    )
    with patch.object(products, "BLOCK_BYTES", x.nbytes // 16), patch.object(machine._here, "threads", 1):
        for call in calls:
            tracemalloc.start()
            out = call()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak - out.nbytes <= x.nbytes


def test_products_of_large_matrices_leave_blas_as_it_was_and_no_thread_spinning() -> None:
    library = machine._openblas()
    if library is None:
        pytest.skip("NumPy is linked to another BLAS")
    before = library.threads()
    x = np.ones((600, 300), np.float32)
    with ThreadPoolExecutor(3) as pool:
        assert all((out == 300).all() for out in pool.map(lambda _: threads.matmul(x, x.T), range(12)))
    assert library.threads() == before
    begun = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - begun < 0.05  # one that spins takes 0.2 s
    with pytest.raises(ValueError, match="mismatch"):
        threads.matmul(x, x[:, :250])
    assert library.threads() == before


def test_an_error_in_a_piece_is_raised_where_the_op_was_called() -> None:
    x = np.ones((64, 4), np.float32)
    x[63] = 0
    with dealt(3), np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        threads.elementwise(np.divide, 1.0, x)
    with dealt(3), np.errstate(divide="ignore"):
        assert np.isinf(threads.elementwise(np.divide, 1.0, x)[63]).all()


def test_calls_on_several_threads_do_not_wait_for_each_other() -> None:
    x = np.arange(6400.0).reshape(64, 100)
    with dealt(3), ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda number: threads.elementwise(np.add, x, number), range(100))
        assert all((out == x + number).all() for number, out in enumerate(results))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # forking is what is tested
def test_a_forked_process_deals_to_threads_of_its_own() -> None:
    x = np.arange(6400.0).reshape(64, 100)
    with dealt(3):
        threads.elementwise(np.negative, x)
        child = os.fork()
        if not child:
            try:
                same = (threads.elementwise(np.negative, x) == -x).all()
            finally:
                os._exit(0 if same else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_ops_and_their_gradients_are_those_of_small_ones(dtype: Any) -> None:
    """Above the size from which on ops are dealt out."""
    x = np.random.default_rng(0).standard_normal((4, threads.LARGE // 3)).astype(dtype)

    def results(x: Array) -> list[Array]:
        leaf = tg.Tensor(x, requires_grad=True)
        out = tg.maximum(tg.exp(leaf.relu()), 2.0)
        return [out.data, tg.grad(out.sum(1).sum(), [leaf])[0].data]

    with patch.object(machine._here, "threads", 3):
        whole = results(x)
    for number, found in enumerate(whole):
        for row in range(len(x)):
            np.testing.assert_array_equal(found[row, :1000], results(x[row : row + 1, :1000])[number][0])
    np.testing.assert_allclose(tg.mean(x, 1).data, x.mean(1, dtype=np.longdouble), atol=1e-6)


def test_the_number_of_threads_is_taken_from_the_environment() -> None:
    def python(value: str, code: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TINYGRAD_MNIST_THREADS": value}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    ask = "from tinygrad_mnist.kernels.machine import op_threads; print(op_threads())"
    assert python("3", ask).stdout == "3\n"
    assert python("", ask).stdout == f"{tg.parallel.usable_cores()}\n"
    for wrong in ("0", "-1", "two", "1.5"):
        said = python(wrong, ask).stderr
        assert f"ValueError: TINYGRAD_MNIST_THREADS is '{wrong}'" in said and "at least 1" in said


def test_ops_of_several_shards_stay_on_their_cores() -> None:
    def threads(batch: int, **settings: int) -> list[int]:
        return list(tg.parallel.map_shards(lambda number, x: machine.op_threads(), np.ones(batch), **settings))

    everything = machine.op_threads()
    assert threads(8, shard_size=4) == [1, 1]
    assert threads(8, shard_size=8) == [everything]
    assert threads(8, shard_size=8, threads=1) == [1]
    assert machine.op_threads() == everything
