"""The gallery of `scripts/benchmark.py`: every framework computes the same, and the summary says what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import benchmark
import numpy as np
import pytest
from benchmarking import convolutions, gallery
from benchmarking.convolutions import Case
from hypothesis import given
from hypothesis import strategies as st

TINY = Case(2, 3, 7, 6, 4, 3, stride=2, padding=1)
OURS, NUMPY, EAGER, LAST, HALF = [*convolutions.CONVOLUTIONS][:5]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n, c, kernel, stride = (draw(st.integers(1, most)) for most in (3, 3, 5, 3))
    padding = draw(st.integers(0, kernel - 1))
    h, w = (draw(st.integers(max(kernel - 2 * padding, 3), 12)) for _ in range(2))
    filters = draw(st.integers(4, 9))  # so many bias gradients, and so many pixels, are not all close to 0 by chance
    return Case(n, c, h, w, filters, kernel, stride, padding)


@given(cases())
def test_ours_computes_the_convolution_of_the_case(case: Case) -> None:
    results = convolutions.OurConvolution(1, case).results()
    assert [a.shape for a in results] == [a.shape for a in case.exact()]
    assert convolutions.largest_error(results, case.exact()) < 1e-5


@pytest.mark.parametrize("name", [EAGER, LAST, HALF])
@pytest.mark.parametrize("case", [TINY, Case(1, 1, 8, 8, 1, 1), Case(3, 16, 9, 9, 8, 5, padding=2)], ids=str)
def test_pytorch_computes_the_convolution_of_the_case(name: str, case: Case) -> None:
    pytest.importorskip("torch")  # for comparison only: no dependency of the project
    convolution = convolutions.CONVOLUTIONS[name](1, case)
    error = convolutions.largest_error(convolution.results(), case.exact())
    if convolution.reduced:
        assert 1e-4 < error < gallery.REDUCED_TOLERANCE
    else:
        assert error < 1e-5


def test_images_keep_their_values_in_another_memory_order() -> None:
    channels_last = np.zeros((2, 5, 6, 4)).transpose(0, 3, 1, 2)
    array = np.arange(2 * 3 * 7 * 8).reshape(2, 3, 7, 8)
    copy = convolutions.in_order_of(channels_last, array)
    assert (copy == array).all() and copy.transpose(0, 2, 3, 1).flags.c_contiguous


class Scaled:
    """A worker whose results are off by a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def request(self, what: str, file: str) -> None:
        assert what == "results"
        np.savez(file, *(self.factor * a for a in TINY.exact()))


def test_a_framework_that_computes_something_else_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    factors = {OURS: 1 + 1e-6, NUMPY: 1 + 1e-2, EAGER: np.nan, HALF: 1 + 1e-2}
    workers: Any = {name: Scaled(factor) for name, factor in factors.items()}
    assert gallery.check_results(workers, TINY) == pytest.approx({OURS: 1e-6, HALF: 1e-2}, rel=1e-3)
    shown = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in shown] == [NUMPY, EAGER] and shown[0].endswith("off by 1.0e-02")


def test_a_wrong_gradient_alone_is_an_error() -> None:
    exact = TINY.exact()
    for i, array in enumerate(exact):
        wrong = [a.copy() for a in exact]
        wrong[i].flat[array.size // 2] += 0.01 * abs(array).max()
        assert convolutions.largest_error(wrong, exact) == pytest.approx(0.01)


def test_each_framework_is_measured_in_its_own_process() -> None:
    args = benchmark.parse_arguments(["--gallery", "--quick", "--repeat", "2", "--threads", "1"])
    (row,) = gallery.measure_gallery([OURS, NUMPY], [TINY], args)
    assert row["shape"] == "2×3×7×6 → 4, 3×3/2 p1" and Case(**row["case"]) == TINY
    assert {name: len(samples) for name, samples in row["ms"].items()} == {OURS: 2, NUMPY: 2}
    assert all(0 <= error < 1e-5 for error in row["errors"].values()) and row["errors"].keys() == {OURS, NUMPY}
    assert not gallery.summarize([row]) and "better PyTorch: median" not in gallery.format_gallery([row])


def rows() -> list[dict[str, Any]]:
    times = [
        {OURS: [1.0, 9.0, 2.0], EAGER: [4.0], LAST: [5.0], HALF: [1.0]},
        {OURS: [6.0], NUMPY: [9.0], EAGER: [4.0], LAST: [3.0]},
        {OURS: [3.6], EAGER: [3.0]},
        {OURS: [8.0]},
    ]
    return [
        {"shape": str(case), "case": case._asdict(), "ms": ms, "errors": dict.fromkeys(ms, 1e-6)}
        for case, ms in zip(gallery.CASES, times, strict=False)
    ]


def test_ours_is_compared_with_the_better_pytorch(tmp_path: Path) -> None:
    shapes = [row["shape"] for row in rows()]
    assert gallery.compare_with_pytorch(rows())[OURS] == dict(zip(shapes, (0.5, 2.0, 1.2), strict=False))
    summary = gallery.summarize(rows())
    assert summary[OURS] == {"median": 1.2, "worst": 2.0, "worst shape": shapes[1], "above": [shapes[1]], "shapes": 3}
    assert summary.keys() == {OURS, NUMPY, HALF} and summary[HALF]["median"] == 0.25
    lines = gallery.format_gallery(rows()).splitlines()
    assert lines[1].split()[-6:] == ["2.00", "4.00", "5.00", "1.00", "0.50", "1e-06"]
    assert f"ours / better PyTorch: median 1.20, worst 2.00 ({shapes[1]}); above 1.2: 1 of 3 shapes" in lines
    assert lines[2].split()[-7:] == ["6.00", "9.00", "4.00", "3.00", "2.00", "3.00", "1e-06"]
    assert lines[4].split()[-2:] == ["8.00", "1e-06"] and lines[-1] == "* reduced precision"
    json.dumps(summary)
    gallery.plot_gallery(rows(), tmp_path / "gallery.png", "title")
    assert (tmp_path / "gallery.png").read_bytes().startswith(b"\x89PNG")


def test_shapes_are_chosen_by_whole_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert gallery.choose_cases(None) == list(gallery.CASES)
    assert {case.kernel for case in gallery.choose_cases("1x1")} == {1}
    assert {(case.kernel, case.stride) for case in gallery.choose_cases("3x3/2,7x7")} == {(3, 2), (7, 2)}
    assert [case[:4] for case in gallery.choose_cases("1x16x256x256")] == [(1, 16, 256, 256)]
    with pytest.raises(SystemExit):
        benchmark.parse_arguments(["--gallery", "--shapes", "9x9"])
    assert "no shape has a word of 9x9; known are 8x3x112x112" in " ".join(capsys.readouterr().err.split())


def test_batch_sizes_are_sorted_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.parse_arguments([]).batch_sizes == [50, 128, 500]
    assert benchmark.parse_arguments(["--batch-sizes", "64,8,64"]).batch_sizes == [8, 64]
    for wrong in ("0", "5,x", ""):
        with pytest.raises(SystemExit):
            benchmark.parse_arguments(["--batch-sizes", wrong])
        assert f"argument --batch-sizes: invalid sizes value: {wrong!r}" in capsys.readouterr().err
