"""The threads of the compiled kernels: they change no bit, and disturb neither forks nor other threads."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
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
from tinygrad_mnist.kernels import Geometry, compiled, machine

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


def convolutions(x: Array, w: Array, bias: Array, g: Array, window: Geometry) -> list[bytes]:
    return [
        compiled.conv_output(x, w, bias, window).tobytes(),
        compiled.conv_input(g, w, window, x.shape[2:]).tobytes(),
        compiled.conv_weight(x, g, window, w.shape[2:]).tobytes(),
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
            expected = convolutions(x, w, bias, g, window)
        for threads in (2, 3, 7):
            with on_threads(threads):
                assert convolutions(x, w, bias, g, window) == expected


@needs_kernels
@levels
@given(
    st.sampled_from([8, 31, 64]),
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
        others = compiled.relu(x), compiled.relu_gradient(scattered, x), compiled.channel_sums(scattered)
        return [array.tobytes() for array in (top, scattered, *others)]

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
        expected = convolutions(*case)
        with ThreadPoolExecutor(4) as pool:
            assert all(found == expected for found in pool.map(lambda _: convolutions(*case), range(40)))


@needs_kernels
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # forking is what is tested
def test_a_forked_process_begins_with_a_pool_of_its_own() -> None:
    case = large()
    with on_threads(3):
        expected = convolutions(*case)
        child = os.fork()
        if not child:
            try:
                same = all(convolutions(*case) == expected for _ in range(3))
            finally:
                os._exit(0 if same else 1)  # without pytest's end
        assert convolutions(*case) == expected
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@needs_kernels
def test_no_thread_spins_after_a_call() -> None:
    case = large()
    with on_threads(4):
        convolutions(*case)
    begun = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - begun < 0.05  # one that spins takes 0.2 s


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
