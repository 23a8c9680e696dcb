"""The compiled kernels in a program of their own: compiled here, and for AArch64, which an emulator runs.

`driver.c` makes the calls; `Driver` stands for the shared library. The properties, and what defines the results, are
those of test_compiled.py.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import test_compiled as properties
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compiled import PLANTED, SOURCE, Array, compare_convolution, drawn, kinds, layouts, poolings, seeds, sides

from tinygrad_mnist.kernels import Geometry, compiled, reference

DRIVER = Path(__file__).with_name("driver.c")
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
ARRAYS, SIZES = 4, 22
MISSING = "needs the Debian packages gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user-static"
needs_emulator = pytest.mark.skipif(not (shutil.which(COMPILER) and shutil.which(EMULATOR)), reason=MISSING)


class Driver:
    """Stands for the shared library: has the functions of `compiled.SIGNATURES`, which a running driver computes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.input, self.output = process.stdin, process.stdout

    def __getattr__(self, name: str) -> Callable[..., int]:
        number = list(compiled.SIGNATURES).index(name)
        return lambda level, threads, *arguments: self.call(number, name, threads, *arguments)

    def call(self, number: int, name: str, threads: int, *arguments: Any) -> int:
        if name == "relu_gradient":
            sizes, pointers = arguments[:1], arguments[1:]
            counts = [sizes[0]] * 3
        elif name == "activation":
            sizes, pointers = arguments[:2], arguments[2:]
            counts = [sizes[1]] * 3
        elif name == "channel_sums":
            sizes, pointers = arguments[:3], arguments[3:]
            counts = [int(np.prod(sizes)), sizes[1]]
        else:
            sizes, pointers = list(arguments[0]), arguments[1:]
            counts = [0] * len(pointers)
        n, c, h, w, f, kh, kw, _, _, _, _, oh, ow, *strides = sizes if len(sizes) > 3 else [0] * SIZES
        spans = [stride * (length - 1) for stride, length in zip(strides[:4], (f, c, kh, kw), strict=True)]
        before = sum(-span for span in spans if span < 0)  # numbers of the weights before the first one
        image, output = h * c * w * n, oh * f * ow * n
        columns = strides[5], strides[4], strides[6], 1  # rows, filters, columns and images of a convolution's output
        written = sum(step * (length - 1) for step, length in zip(columns, (oh, f, ow, n), strict=True)) + 1
        counts = {
            "convolve": [image, sum(map(abs, spans)) + 1, f, written],
            "weight_gradient": [image, output, f * c * kh * kw],
            "max_pool": [image, output],
            "max_pool_gradient": [output, image, output, image],
            "average_pool": [image, output],
            "average_pool_gradient": [output, image],
            "depthwise": [image, f * kh * kw, f, output],
            "depthwise_gradient": [output, f * kh * kw, image],
            "depthwise_weights": [image, output, f * kh * kw],
        }.get(name, counts)
        offsets = [0, before if name == "convolve" else 0, 0, 0]
        memory = [self.memory(p, count, at) for p, count, at in zip(pointers, counts, offsets, strict=False)]
        result = memory.pop()
        inputs = memory + [np.empty(0, np.float32)] * (ARRAYS - 1 - len(memory))
        sent = [array.size for array in (*inputs, result)]
        header = [number, threads, *sizes, *[0] * (SIZES - len(sizes)), *sent, *offsets]
        self.input.write(np.array(header, np.int64).tobytes() + b"".join(array.tobytes() for array in inputs))
        self.input.flush()
        status = int.from_bytes(self.output.read(8), "little", signed=True)
        computed = np.frombuffer(self.output.read(result.nbytes), np.float32)
        if name == "convolve":  # numbers between the columns are not its own
            seen = {"shape": (oh, f, ow, n), "strides": [4 * step for step in columns]}
            result, computed = (np.lib.stride_tricks.as_strided(a, **seen) for a in (result, computed))
        result[...] = computed
        assert status >= 0, f"{name} wrote beyond an array"
        return status

    @staticmethod
    def memory(pointer: Any, count: int, before: int) -> Array:
        """Return the numbers in memory from `before` numbers before the pointer on."""
        if pointer is None:
            return np.empty(0, np.float32)
        address = pointer if isinstance(pointer, int) else ctypes.addressof(pointer)
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address - 4 * before))


def compiled_driver(folder: Path, emulated: bool, planted: str = "") -> list[str]:
    """Compile kernels and driver, maybe with a planted error; returns the command that runs them."""
    file, right, wrong = PLANTED.get(planted, ("", "", ""))
    for source in (*SOURCE.parent.glob("*.[ch]"), DRIVER):
        text = source.read_text()
        assert source.name != file or text.count(right) == 1
        (folder / source.name).write_text(text.replace(right, wrong) if source.name == file else text)
    optimized = "-O0" if not emulated else "-O1" if planted else "-O3"
    command = [COMPILER if emulated else "cc", "-std=c11", optimized, "-ffp-contract=fast", "-Wno-psabi", "-pthread"]
    program = folder / "driver"
    linked = ["-static"] if emulated else []
    files = [folder / DRIVER.name, folder / SOURCE.name]
    run = subprocess.run([*command, *linked, "-o", program, *files, "-lm"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return [*([EMULATOR] if emulated else []), str(program)]


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """Have a driver compute, on three threads."""
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        patch.object(compiled, "LIBRARY", Driver(process)),
        patch.object(compiled, "LEVEL", 0),
        patch.object(compiled, "op_threads", lambda: 3),
    ):
        yield
    assert process.returncode == 0


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, id="here", marks=properties.needs_compiler),
        pytest.param(True, id="AArch64", marks=[pytest.mark.slow, needs_emulator]),
    ],
)
def driver(request: Any, tmp_path_factory: Any) -> Iterator[None]:
    with running(compiled_driver(tmp_path_factory.mktemp("driver"), request.param)):
        yield


CONVOLUTIONS: list[tuple[Any, ...]] = [  # images, channels, filters, size, kernel, stride, padding
    (1, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0)),
    (5, 3, 7, (6, 7), (3, 3), (1, 1), (1, 1)),  # the textbook: few channels
    (1, 3, 8, (11, 14), (5, 5), (2, 2), (2, 2)),  # fewer images than lanes, with a stride
    (3, 9, 17, (5, 6), (1, 1), (1, 1), (0, 0)),
    (3, 9, 9, (5, 6), (1, 1), (2, 2), (0, 0)),
    (8, 8, 8, (6, 9), (3, 3), (1, 1), (1, 1)),  # Winograd, a tail of its columns
    (13, 17, 12, (4, 8), (3, 3), (1, 1), (1, 0)),  # … and of images, channels and filters
    (12, 8, 5, (5, 7), (2, 3), (2, 1), (0, 2)),
    (2, 200, 9, (3, 5), (3, 3), (1, 1), (1, 1)),  # more rows than are summed up at a time
    (20, 2, 3, (4, 5), (4, 4), (3, 1), (2, 4)),
    (129, 1, 16, (6, 6), (3, 3), (1, 1), (0, 0)),
]


@pytest.mark.parametrize("geometry", CONVOLUTIONS, ids=str)
def test_convolutions_in_a_driver(driver: None, geometry: Any) -> None:
    compare_convolution(geometry, "batch innermost", 0, True)
    compare_convolution(geometry, "reversed", 1, False)


few = settings(max_examples=20)
sizes = st.integers(1, 9), st.sampled_from([1, 3, 4, 8, 9]), st.sampled_from([1, 4, 5, 8, 17])


@few
@given(*sizes, properties.convolutions(), layouts, seeds, st.booleans())
def test_random_convolutions_in_a_driver(
    driver: None, n: int, c: int, f: int, geometry: Any, layout: str, seed: int, biased: bool
) -> None:
    compare_convolution((n, c, f, *geometry[3:]), layout, seed, biased)


@few
@given(properties.spread_convolutions(), layouts, seeds, st.booleans())
def test_dilation_and_groups_in_a_driver(driver: None, geometry: Any, layout: str, seed: int, biased: bool) -> None:
    compare_convolution(geometry, layout, seed, biased)


def original(test: Any) -> Callable[..., None]:
    """Return the function of a property of test_compiled.py, to be tried with other examples."""
    inner: Callable[..., None] = test.hypothesis.inner_test
    return inner


@few
@given(st.integers(1, 13), st.integers(1, 5), poolings(), layouts, st.booleans(), seeds)
def test_max_pooling_in_a_driver(
    driver: None, n: int, c: int, pooling: Any, layout: str, ties: bool, seed: int
) -> None:
    original(properties.test_max_pooling_equals_its_definition)(0, n, c, pooling, layout, ties, seed)


@few
@given(st.integers(1, 13), st.integers(1, 2), poolings(), seeds)
def test_overlapping_windows_in_a_driver(driver: None, n: int, c: int, pooling: Any, seed: int) -> None:
    original(properties.test_gradients_of_overlapping_windows_are_added_up_by_definition)(0, n, c, pooling, seed)


@few
@given(st.integers(1, 13), st.integers(1, 5), poolings(), layouts, seeds, st.booleans())
def test_average_pooling_in_a_driver(
    driver: None, n: int, c: int, pooling: Any, layout: str, seed: int, special: bool
) -> None:
    inner = original(properties.test_average_pooling_equals_its_definition)
    inner(0, n, c, pooling, layout, seed, special, 1.0)


@few
@given(st.integers(1, 20), st.integers(1, 5), *[st.integers(1, 6)] * 2, layouts, layouts, seeds)
def test_relu_in_a_driver(
    driver: None, n: int, c: int, h: int, w: int, g_layout: str, y_layout: str, seed: int
) -> None:
    original(properties.test_relu_gradients_equal_their_definition)(0, n, c, h, w, g_layout, y_layout, seed)


@few
@given(kinds, st.integers(1, 9), st.integers(1, 4), sides, sides, layouts, layouts, seeds)
def test_activations_in_a_driver(
    driver: None, kind: str, n: int, c: int, h: int, w: int, x_layout: str, g_layout: str, seed: int
) -> None:
    inner = original(properties.test_activations_equal_their_definition)
    inner(0, kind, n, c, h, w, x_layout, g_layout, seed)


@few
@given(
    st.integers(1, 70), st.integers(1, 5), *[st.integers(1, 6)] * 2, layouts, seeds, st.sampled_from([1.0, 1e30, 1e-38])
)
def test_sums_of_channels_in_a_driver(
    driver: None, n: int, c: int, h: int, w: int, layout: str, seed: int, scale: float
) -> None:
    original(properties.test_sums_of_channels_are_exact_to_rounding_by_definition)(0, n, c, h, w, layout, seed, scale)


@few
@given(st.integers(8, 17), st.sampled_from(["column", "row", "channel", "image", "zeros"]), st.floats(0, 8), seeds)
def test_results_are_as_exact_as_plain_sums_in_a_driver(
    driver: None, n: int, what: str, power: float, seed: int
) -> None:
    inner = original(properties.test_results_are_as_exact_as_plain_sums_by_definition)
    inner(0, n, 8, (4, 7), (1, 1), what, power, seed)


def test_bits_do_not_depend_on_the_number_of_threads_in_a_driver(driver: None) -> None:
    rng, window = np.random.default_rng(0), Geometry((1, 1), (1, 1))
    shapes = (8, 8, 9, 13), (9, 8, 3, 3), (8, 9, 9, 13)
    x, w, g = (drawn(rng, shape, "batch innermost") for shape in shapes)
    results = set()
    for threads in (1, 2, 5):
        with patch.object(compiled, "op_threads", lambda threads=threads: threads):
            outputs = (
                compiled.conv_output(x, w, None, window),
                compiled.conv_input(g, w, window, (9, 13)),
                compiled.conv_weight(x, g, window, (3, 3)),
                top := compiled.max_pool(x, (3, 3), Geometry((2, 2), (1, 1))),
                compiled.max_pool_scatter(top, x, top, (3, 3), Geometry((2, 2), (1, 1))),
                compiled.average_pool(x, (3, 3), Geometry((2, 2), (1, 1))),
                compiled.average_pool_gradient(top, (3, 3), Geometry((2, 2), (1, 1)), (9, 13)),
                compiled.channel_sums(x),
                compiled.activation("gelu", x, x),
            )
            results.add(b"".join(array.tobytes() for array in outputs))
    assert len(results) == 1


# Testing the tests ----------------------------------------------------------------------------------------------------
@pytest.mark.slow
@needs_emulator
@pytest.mark.parametrize(
    "planted", ["", "some filters of a block", "an image too few", "a transformed point", "every maximum"]
)
def test_errors_planted_in_kernels_for_aarch64_are_found(planted: str, tmp_path: Path) -> None:
    x = np.ones((8, 1, 4, 4), np.float32)
    top = reference.max_pool(x, (2, 2), Geometry((2, 2)))
    found = False
    with running(compiled_driver(tmp_path, True, planted)):
        for geometry in CONVOLUTIONS:
            try:
                compare_convolution(geometry, "batch innermost", 0, True)
            except AssertionError:
                found = True
        scattered = compiled.max_pool_scatter(top, x, top, (2, 2), Geometry((2, 2)))
    assert (found or bool(scattered.sum() != top.sum())) == bool(planted)
