"""Optimizers against scalar formulas; saved states continue bit for bit; a state that does not fit changes nothing."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_checks import some

import tinygrad_mnist as tg
from tinygrad_mnist import optim


# One number at a time: what each gradient of a sequence subtracts from w ----------------------------------------------
def sgd(
    w: float, gs: list[float], lr: float, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
) -> Iterator[float]:
    v = 0.0
    for g in gs:
        g += weight_decay * w
        v = momentum * v + g
        w -= lr * (g + momentum * v if nesterov else v)
        yield lr * (g + momentum * v if nesterov else v)


def adagrad(w: float, gs: list[float], lr: float, eps: float = 1e-7) -> Iterator[float]:
    h = 0.0
    for g in gs:
        h += g * g
        yield lr * g / (math.sqrt(h) + eps)


def rmsprop(
    w: float,
    gs: list[float],
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    centered: bool = False,
    weight_decay: float = 0.0,
) -> Iterator[float]:
    square = mean = v = 0.0
    for g in gs:
        g += weight_decay * w
        square, mean = alpha * square + (1 - alpha) * g * g, alpha * mean + (1 - alpha) * g
        v = momentum * v + g / (math.sqrt(max(square - mean * mean if centered else square, 0)) + eps)
        w -= lr * v
        yield lr * v


def adam(
    w: float,
    gs: list[float],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Iterator[float]:
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        change = lr * (m / (1 - betas[0] ** t)) / (math.sqrt(v / (1 - betas[1] ** t)) + eps) + lr * weight_decay * w
        w -= change
        yield change


KINDS: list[tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = [
    (optim.SGD, sgd, {"lr": 0.1}),
    (optim.SGD, sgd, {"lr": 0.05, "momentum": 0.9}),
    (optim.SGD, sgd, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.5}),
    (optim.RMSprop, rmsprop, {"lr": 0.01}),
    (optim.RMSprop, rmsprop, {"lr": 0.01, "alpha": 0.5, "eps": 0.1, "momentum": 0.9, "weight_decay": 0.3}),
    (optim.RMSprop, rmsprop, {"lr": 0.01, "alpha": 0.7, "eps": 0.1, "centered": True}),
    (optim.AdaGrad, adagrad, {"lr": 0.1}),
    (optim.AdaGrad, adagrad, {"lr": 0.02, "eps": 0.5}),
    (optim.Adam, adam, {"lr": 0.1}),
    (optim.Adam, adam, {"lr": 0.02, "betas": (0.5, 0.8), "eps": 0.1}),
    (optim.AdamW, adam, {"lr": 0.1, "weight_decay": 0.5}),
    (optim.AdamW, adam, {"lr": 0.02, "betas": (0.5, 0.8), "eps": 0.1, "weight_decay": 3.0}),
]
every_kind = pytest.mark.parametrize(("kind", "formula", "how"), KINDS, ids=lambda v: getattr(v, "__name__", ""))
optimizers = pytest.mark.parametrize(
    "kind", [optim.SGD, optim.AdaGrad, optim.RMSprop, optim.Adam, optim.AdamW, optim.Muon]
)


def model(dtype: Any = np.float32, seed: int = 0) -> dict[str, tg.Tensor]:
    rng = np.random.default_rng(seed)
    return {
        name: tg.Tensor(rng.normal(size=shape).astype(dtype), requires_grad=True)
        for name, shape in [("w", (2, 3)), ("b", (3,))]
    }


def gradients(seed: int, steps: int, dtype: Any = np.float32) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {"w": rng.normal(size=(2, 3)).astype(dtype), "b": rng.integers(-1, 2, 3).astype(dtype)} for _ in range(steps)
    ]


def assert_same(first: Any, second: Any) -> None:
    """Compare nested dicts of arrays, bit for bit."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, np.ndarray):
        np.testing.assert_array_equal(first, second, strict=True)
    else:
        assert first == second


def snapshot(params: dict[str, tg.Tensor], optimizer: Any) -> Any:
    return copy.deepcopy([{name: p.data for name, p in params.items()}, optimizer.state_dict()])


# Steps ----------------------------------------------------------------------------------------------------------------
@every_kind
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 8), passed=st.booleans())
def test_steps_follow_the_formula(
    kind: Any, formula: Any, how: Any, dtype: Any, seed: int, steps: int, passed: bool
) -> None:
    params, sequence = model(dtype, seed), gradients(seed, steps, dtype)
    start = {name: p.data.astype(np.float64) for name, p in params.items()}
    optimizer = kind(params, **how)
    for grads in sequence:
        if not passed:
            for name, g in grads.items():
                params[name].grad = tg.Tensor(g)
        optimizer.step(grads if passed else None)
    for name, p in params.items():
        assert p.dtype == dtype and p.requires_grad
        for index in np.ndindex(p.shape):
            moved = sum(formula(start[name][index], [float(grads[name][index]) for grads in sequence], **how))
            assert abs(p.data[index] - (start[name][index] - moved)) < steps * 20 * np.finfo(dtype).eps
    assert all(a.dtype == dtype for slots in optimizer.state_dict()["state"].values() for a in slots.values())


PATTERNS = st.lists(st.sets(st.sampled_from(["w", "b"]), min_size=1), min_size=1, max_size=6)


@every_kind
@given(patterns=PATTERNS, seed=st.integers(0, 2**32 - 1))
def test_each_parameter_counts_its_own_gradients(
    kind: Any, formula: Any, how: Any, patterns: list[set[str]], seed: int
) -> None:
    """A parameter whose first gradient comes late is moved as one whose first gradient comes first."""
    params, sequence = model(np.float64, seed), gradients(seed, len(patterns), np.float64)
    start = {name: p.data for name, p in params.items()}
    optimizer = kind(params, **how)
    given_ = [{name: g[name] for name in sorted(names)} for g, names in zip(sequence, patterns, strict=True)]
    for i, grads in enumerate(given_):
        optimizer.step(grads)
        if i == len(given_) // 2:  # the counts are saved
            saved = pickle.loads(pickle.dumps(optimizer.state_dict()))
            optimizer = kind(params, **how)
            optimizer.load_state_dict(saved)
    for name, p in params.items():
        gs = [grads[name].flat[0] for grads in given_ if name in grads]
        moved = sum(formula(start[name].flat[0], gs, **how))
        assert abs(p.data.flat[0] - (start[name].flat[0] - moved)) < 1e-12


@pytest.mark.parametrize(("kind", "name"), [(optim.Adam, "Adam"), (optim.AdamW, "AdamW")])
@settings(deadline=None)
@given(patterns=PATTERNS, seed=st.integers(0, 2**32 - 1))
def test_late_parameters_are_moved_as_by_pytorch(kind: Any, name: str, patterns: list[set[str]], seed: int) -> None:
    torch = pytest.importorskip("torch")
    params, sequence = model(np.float64, seed), gradients(seed, len(patterns), np.float64)
    theirs = {name: torch.tensor(p.data.copy(), requires_grad=True) for name, p in params.items()}
    ours, reference = kind(params, lr=0.1), getattr(torch.optim, name)(list(theirs.values()), lr=0.1)
    for grads, names in zip(sequence, patterns, strict=True):
        for p in (*params, *theirs):
            params[p].grad = theirs[p].grad = None
        for p in names:
            params[p].grad, theirs[p].grad = grads[p], torch.tensor(grads[p])
        ours.step()
        reference.step()
    for p in params:
        np.testing.assert_allclose(params[p].data, theirs[p].detach().numpy(), rtol=1e-10, atol=1e-12)


@optimizers
def test_a_state_from_before_gradients_were_counted_by_parameter_is_accepted(kind: Any) -> None:
    sequence = gradients(3, 3)
    whole, params = kind(model()), model()
    first = kind(params)
    for grads in sequence[:2]:
        whole.step(grads)
        first.step(grads)
    saved = first.state_dict()
    assert saved.pop("updates") == {"w": 2, "b": 2}
    second = kind(params)
    second.load_state_dict(saved)
    whole.step(sequence[2])
    second.step(sequence[2])
    for one, other in zip(snapshot(whole.params, whole), snapshot(params, second), strict=True):
        assert_same(one, other)


@every_kind
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_settings_do_not_change_the_dtype(kind: Any, formula: Any, how: Any, dtype: Any) -> None:
    params = model(dtype)
    kinds = {tuple: lambda v: tuple(map(np.float64, v)), bool: bool, float: np.float64}
    settings_ = {name: kinds[type(v)](v) for name, v in how.items()}
    optimizer = kind(params, **settings_)
    optimizer.step(gradients(0, 1, np.float64)[0])
    optimizer.lr = np.float64(0.5)  # a schedule may set it so
    optimizer.step(gradients(1, 1, np.float64)[0])
    optimizer.load_state_dict(optimizer.state_dict() | settings_)  # a file may hold it so
    optimizer.step(gradients(2, 1, np.float64)[0])
    assert [p.dtype for p in params.values()] == [dtype] * 2
    assert all(a.dtype == dtype for slots in optimizer.state_dict()["state"].values() for a in slots.values())


@optimizers
def test_a_single_number_stays_an_array(kind: Any) -> None:
    w = tg.Tensor(np.float32(2), requires_grad=True)
    optimizer = kind({"w": w})
    for _ in range(2):
        optimizer.step({"w": 1.5})
    assert isinstance(w.data, np.ndarray) and w.dtype == np.float32 and w.shape == () and w.item() < 2
    assert all(isinstance(a, np.ndarray) for a in optimizer.state_dict()["state"]["w"].values())


@optimizers
def test_a_parameter_without_gradient_stays_as_it_is(kind: Any) -> None:
    params = model()
    optimizer = kind(params)
    optimizer.step({"w": np.ones((2, 3))})
    before = snapshot(params, optimizer)
    optimizer.step({"w": np.ones((2, 3))})
    after = snapshot(params, optimizer)
    assert_same(before[0]["b"], after[0]["b"])
    assert_same(before[1]["state"]["b"], after[1]["state"]["b"])
    assert not np.array_equal(before[0]["w"], after[0]["w"])
    params["b"].grad, alone = tg.Tensor(np.ones(3, np.float32)), params["w"].data.copy()
    optimizer.step()
    assert_same(params["w"].data, alone)
    assert not np.array_equal(params["b"].data, after[0]["b"])


@optimizers
def test_snapshots_and_gradients_are_never_written_to(kind: Any) -> None:
    params = model()
    optimizer = kind(params)
    for grads in gradients(0, 3):
        snapshots, state = {n: p.data for n, p in params.items()}, optimizer.state_dict()
        kept, kept_grads = copy.deepcopy([snapshots, state]), copy.deepcopy(grads)
        for array in grads.values():
            array.flags.writeable = False
        optimizer.step(grads)
        assert_same(kept[0], snapshots)
        assert_same(kept[1], state)
        assert_same(kept_grads, grads)
        assert not any(np.shares_memory(p.data, grads[name]) for name, p in params.items())


@optimizers
@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"w": np.ones((2, 3)), "x": np.ones(3)}, "'x'.*w, b"),
        ({"w": np.ones((2, 3)), "b": np.ones((3, 1))}, r"b has shape \(3, 1\).*\(3,\)"),
        ({"w": np.ones((2, 3)), "b": 1.0}, r"b has shape \(\).*\(3,\)"),
        ({}, "no gradient"),
        (None, "no gradient"),
    ],
)
def test_gradients_that_do_not_fit_change_nothing(kind: Any, grads: Any, message: str) -> None:
    params = model()
    optimizer = kind(params)
    optimizer.step(gradients(0, 1)[0])
    before = snapshot(params, optimizer)
    with pytest.raises(ValueError, match=f"{kind.__name__}.*{message}"):
        optimizer.step(grads)
    for first, second in zip(before, snapshot(params, optimizer), strict=True):
        assert_same(first, second)


@optimizers
def test_zero_grad_removes_gradients(kind: Any) -> None:
    params = model()
    optimizer = kind(params)
    (params["w"] + params["b"]).sum().backward()
    optimizer.zero_grad()
    assert [p.grad for p in params.values()] == [None, None]


@optimizers
def test_hyperparameters_and_parameters_are_checked(kind: Any) -> None:
    for lr in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"{kind.__name__}: lr is"):
            kind(model(), lr=lr)
    with pytest.raises(TypeError, match="dict of name to Tensor"):
        kind(list(model().values()))


# Muon -----------------------------------------------------------------------------------------------------------------
def orthogonalized(matrix: Any) -> Any:
    """The textbook iteration, in double precision."""
    x = matrix / (np.linalg.norm(matrix) or 1)
    for _ in range(5):
        x = 3.4445 * x - 4.775 * (x @ x.T) @ x + 2.0315 * (x @ x.T) @ (x @ x.T) @ x
    return x


SHAPES = [(1, 1), (1, 4), (4, 1), (3, 5), (6, 2), (16, 9), (4, 2, 3, 3), (2, 1, 3), (0, 3), (3, 0), (70, 130)]


@settings(deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 4),
    momentum=st.sampled_from([0.0, 0.6, 0.95]),
    magnitude=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_muon_follows_the_textbook(
    shape: tuple[int, ...], dtype: Any, seed: int, steps: int, momentum: float, magnitude: float
) -> None:
    rng = np.random.default_rng(seed)
    params = {"w": tg.Tensor(rng.normal(size=shape).astype(dtype), requires_grad=True)}
    expected, mean = params["w"].data.astype(np.float64), np.zeros(shape)
    optimizer = optim.Muon(params, lr=0.02, momentum=momentum, weight_decay=0.5)
    for _ in range(steps):
        g = (magnitude * rng.normal(size=shape)).astype(dtype)
        optimizer.step({"w": g})
        mean = momentum * mean + (1 - momentum) * g
        ahead = momentum * mean + (1 - momentum) * g
        matrix = ahead.reshape(shape[0], math.prod(shape[1:]))
        scale = 0.02 * 0.2 * math.sqrt(max(matrix.shape))
        expected = expected - scale * orthogonalized(matrix).reshape(shape) - 0.02 * 0.5 * expected
    assert params["w"].dtype == dtype and list(optimizer.state["w"]) == ["m"]
    tolerance = {np.float16: 2e-2, np.float32: 2e-5, np.float64: 1e-12}[dtype]
    np.testing.assert_allclose(params["w"].data, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("magnitude", [0.0, 1e-44, 1e-30, 1e30, 3e38])
def test_muon_does_not_depend_on_the_size_of_gradients(magnitude: float) -> None:
    g = np.array([[1.0, -2.0, 0.5], [0.0, 1.0, 1.0]])
    moved = []
    for factor in (1.0, magnitude):
        w = tg.Tensor(np.zeros((2, 3), np.float32), requires_grad=True)
        optim.Muon({"w": w}, lr=1.0, momentum=0.0).step({"w": (factor * (g / 2)).astype(np.float32)})
        moved.append(w.data)
    np.testing.assert_allclose(moved[1], moved[0] if magnitude else 0, atol=0.1 if 0 < magnitude < 1e-40 else 1e-5)


@given(seed=st.integers(0, 2**32 - 1))
def test_muon_makes_all_directions_about_equally_long(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = tg.Tensor(np.zeros((6, 20)), requires_grad=True)
    g = rng.normal(size=(6, 20)) * np.exp(rng.normal(size=20))
    optim.Muon({"w": w}, lr=1.0, momentum=0.0).step({"w": g})
    u, _, v = np.linalg.svd(g, full_matrices=False)
    lengths = np.diag(u.T @ (w.data / -(0.2 * math.sqrt(20))) @ v.T)
    assert ((lengths > 0.6) & (lengths < 1.25)).all()


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 5))
def test_muon_updates_biases_as_adamw_does(seed: int, steps: int) -> None:
    how = {"lr": 0.02, "betas": (0.7, 0.8), "weight_decay": 0.1}
    first, second = model(seed=seed), model(seed=seed)
    muon, adamw = optim.Muon(first, **how), optim.AdamW({"b": second["b"]}, **how)
    for grads in gradients(seed, steps):
        muon.step(grads)
        adamw.step({"b": grads["b"]})
    assert_same(first["b"].data, second["b"].data)


@pytest.mark.parametrize("decay", [-0.1, math.nan, math.inf])
def test_an_invalid_weight_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="AdamW: weight_decay is"):
        optim.AdamW(model(), weight_decay=decay)
    optimizer = optim.AdamW(model())
    with pytest.raises(ValueError, match="AdamW: the saved state does not fit: weight_decay is"):
        optimizer.load_state_dict({**optimizer.state_dict(), "weight_decay": decay})
    assert optimizer.weight_decay == 0.01


def test_a_quadratic_function_is_minimized() -> None:
    for kind, lr in [(optim.SGD, 0.1), (optim.AdaGrad, 0.5), (optim.Adam, 0.1)]:
        w = tg.Tensor(np.array([3.0, -2.0]), requires_grad=True)
        optimizer = kind({"w": w}, lr=lr)
        for _ in range(300):
            optimizer.zero_grad()
            ((w - np.array([1.0, 1.0])) ** 2).sum().backward()
            optimizer.step()
        np.testing.assert_allclose(w.data, 1, atol=1e-3)


# Saved state ----------------------------------------------------------------------------------------------------------
@every_kind
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=st.integers(0, 2**32 - 1), before=st.integers(0, 4), after=st.integers(1, 4))
def test_a_rebuilt_optimizer_continues_bit_for_bit(
    kind: Any, formula: Any, how: Any, dtype: Any, seed: int, before: int, after: int
) -> None:
    grads = gradients(seed, before + after, dtype)
    params = model(dtype)
    optimizer = kind(params, **how)
    for g in grads[:before]:
        optimizer.step(g)
    saved, weights = optimizer.state_dict(), {name: p.data.copy() for name, p in params.items()}
    for g in grads[before:]:
        optimizer.step(g)

    rebuilt = {name: tg.Tensor(weights[name], requires_grad=True) for name in reversed(list(weights))}
    other = kind(rebuilt, lr=7.0, **{name: v for name, v in how.items() if name == "centered"})
    other.load_state_dict(saved)
    for slots in saved["state"].values():
        for array in slots.values():
            array[...] = 99  # what was loaded is a copy
    for g in grads[before:]:
        other.step(g)
    assert_same({name: p.data for name, p in params.items()}, {name: rebuilt[name].data for name in params})
    first, second = optimizer.state_dict(), other.state_dict()
    assert_same(first, {**second, "state": {name: second["state"][name] for name in first["state"]}})


@optimizers
def test_the_saved_state_is_a_copy(kind: Any) -> None:
    params = model()
    optimizer = kind(params)
    optimizer.step(gradients(0, 1)[0])
    before = snapshot(params, optimizer)[1]
    for slots in optimizer.state_dict()["state"].values():
        for array in slots.values():
            array[...] = 99
    assert_same(optimizer.state_dict(), before)


def change(path: tuple[str, ...], value: Any) -> Callable[[Any], None]:
    def apply(saved: Any) -> None:
        for key in path[:-1]:
            saved = saved[key]
        if value is None:
            del saved[path[-1]]
        else:
            saved[path[-1]] = value

    return apply


@optimizers
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(("kind",), "Other"), "Other"),
        (change(("lr",), None), "lr"),
        (change(("state", "w"), None), "state/w is missing"),
        (change(("state", "extra"), {}), "state/extra is not in the optimizer"),
        (change(("state", "b"), {}), "state/b/[a-z]+ is missing"),
        (
            change(
                ("state", "b"), {"h": np.zeros((2, 2)), "m": np.zeros(1), "v": np.zeros(3), "velocity": np.zeros(())}
            ),
            "state/b/[a-z]+ has shape",
        ),
    ],
    ids=["kind", "setting", "missing", "unknown", "empty", "shapes"],
)
def test_a_state_that_does_not_fit_changes_nothing(kind: Any, damage: Any, message: str) -> None:
    params = model()
    optimizer = kind(params)
    optimizer.step(gradients(0, 1)[0])
    other = kind(model(), lr=0.5)
    other.step(gradients(1, 1)[0])
    saved = other.state_dict()
    damage(saved)
    before = snapshot(params, optimizer)
    with pytest.raises(ValueError, match=f"{kind.__name__}: .*{message}"):
        optimizer.load_state_dict(saved)
    for first, second in zip(before, snapshot(params, optimizer), strict=True):
        assert_same(first, second)


@pytest.mark.parametrize(
    "setting, value",
    [("lr", []), ("lr", [0.1]), ("lr", np.zeros(999)), ("betas", 0.9), ("betas", [0.9]), ("betas", (0.9, "x"))],
)
def test_settings_of_the_wrong_type_do_not_fit(setting, value):
    optimizer = optim.Adam({"w": tg.Tensor(1.0, requires_grad=True)})
    with pytest.raises(ValueError, match=f"Adam: the saved state does not fit: {setting}(.1.)? is [^\\n]+$"):
        optimizer.load_state_dict({**optimizer.state_dict(), setting: value})


def test_every_difference_of_a_state_is_listed_and_the_dtype_is_kept() -> None:
    params = model()
    optimizer, other = optim.Adam(params, lr=1), optim.Adam(model(np.float64), lr=0.5)
    other.step(gradients(1, 1, np.float64)[0])
    saved = other.state_dict()
    strange = {**saved, "steps": -1, "lr": "fast", "state": {**saved["state"], "b": {"m": np.zeros(3, int)}}}
    with pytest.raises(ValueError) as caught:
        optimizer.load_state_dict(strange)
    for part in ("lr is 'fast'", "steps is -1", "state/b/v is missing", "state/b/m is int64", "make the optimizer as"):
        assert part in str(caught.value)
    optimizer.load_state_dict(saved)  # floats of another precision are converted
    assert optimizer.lr == 0.5 and {a.dtype.name for slots in optimizer.state.values() for a in slots.values()} == {
        "float32"
    }


def test_a_state_from_before_nesterov_is_accepted() -> None:
    saved = optim.SGD(model(), momentum=0.5).state_dict()
    assert (saved.pop("nesterov"), saved.pop("weight_decay")) == (False, 0.0)
    other = optim.SGD(model(), momentum=0.9, nesterov=True)
    other.load_state_dict(saved)  # with its settings, as always
    assert (other.momentum, other.nesterov) == (0.5, False)
    with pytest.raises(ValueError, match="the saved state does not fit: nesterov is 'yes'; it must be True or False"):
        other.load_state_dict({**saved, "nesterov": "yes"})


def test_flags_are_checked() -> None:
    with pytest.raises(TypeError, match="SGD: nesterov is 1; it must be True or False"):
        optim.SGD(model(), momentum=0.5, nesterov=1)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValueError, match="SGD: nesterov is True, and momentum 0"):
        optim.SGD(model(), nesterov=True)
    with pytest.raises(TypeError, match="RMSprop: centered is None"):
        optim.RMSprop(model(), centered=None)  # type: ignore[arg-type]  # on purpose
    state = optim.RMSprop(model(), centered=True).state_dict()
    with pytest.raises(ValueError, match="RMSprop: .*centered is True, the optimizer's is False; state/w/mean is not"):
        optim.RMSprop(model()).load_state_dict(state)


def test_a_variance_that_rounding_makes_negative_counts_as_0() -> None:
    w = tg.Tensor(np.zeros(1000, np.float32), requires_grad=True)
    optimizer = optim.RMSprop({"w": w}, lr=1e-6, alpha=0.5, centered=True)
    for _ in range(40):  # the mean of the squares nears the square of the mean
        optimizer.step({"w": np.random.default_rng(0).normal(size=1000)})
    assert np.isfinite(w.data).all()


# Against PyTorch ------------------------------------------------------------------------------------------------------
rates, shares = st.floats(1e-3, 0.1), st.floats(0, 0.95)
CONFIGURATIONS: dict[str, Any] = {
    "SGD": st.fixed_dictionaries({"momentum": st.floats(0.1, 0.95), "nesterov": st.booleans(), "weight_decay": shares}),
    "RMSprop": st.fixed_dictionaries(
        {
            "alpha": st.floats(0.5, 0.99),
            "eps": rates,
            "momentum": shares,
            "centered": st.booleans(),
            "weight_decay": shares,
        }
    ),
    "AdamW": st.fixed_dictionaries({"betas": st.tuples(shares, shares), "eps": rates, "weight_decay": shares}),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
@some
@given(data=st.data(), lr=rates, group=st.sampled_from([{}, {"lr": 0.02}, {"weight_decay": 0.3}]), seed=st.integers(0))
def test_steps_and_groups_are_those_of_pytorch(name: str, data: Any, lr: float, group: Any, seed: int) -> None:
    torch = pytest.importorskip("torch")
    how, params = data.draw(CONFIGURATIONS[name]), model(np.float64, seed)
    theirs = {name: torch.tensor(p.data.copy(), requires_grad=True) for name, p in params.items()}
    ours = getattr(optim, name)(params, lr=lr, **how, groups={"b*": group})
    reference = getattr(torch.optim, name)(
        [{"params": [theirs["w"]]}, {"params": [theirs["b"]], **group}], lr=lr, **how
    )
    for grads in gradients(seed, 10, np.float64):
        for p in theirs:
            theirs[p].grad = torch.tensor(grads[p])
        ours.step(grads)
        reference.step()
    for p in params:
        np.testing.assert_allclose(params[p].data, theirs[p].detach().numpy(), rtol=1e-9, atol=1e-11)


# Groups ---------------------------------------------------------------------------------------------------------------
def layers(dtype: Any = np.float64) -> dict[str, tg.Tensor]:
    rng = np.random.default_rng(0)
    names = [f"layers.{i}.{part}" for i in (0, 1) for part in ("weight", "bias")]
    return {name: tg.Tensor(rng.normal(size=(2, 3)).astype(dtype), requires_grad=True) for name in names}


GROUPS = {"*.bias": {"weight_decay": 0}, "layers.0.*": {"lr": 0.01}, "layers.0.bias": {"lr": 0.03}}


@pytest.mark.parametrize("kind", [optim.SGD, optim.RMSprop, optim.AdamW, optim.Muon])
@some
@given(seed=st.integers(0, 2**32 - 1), rate=st.sampled_from([0.0, 0.25, 1.0, 3.0]))
def test_groups_are_optimizers_of_their_own(kind: Any, seed: int, rate: float) -> None:
    """Also where a schedule sets the learning rate, and when a saved state is continued."""
    first, second, rng = layers(), layers(), np.random.default_rng(seed)
    how = {"layers.0.weight": (0.01, 0.5), "layers.0.bias": (0.03, 0), "layers.1.weight": (0.1, 0.5)}
    how["layers.1.bias"] = (0.1, 0)
    apart = {n: kind({n: second[n]}, lr=lr, weight_decay=decay) for n, (lr, decay) in how.items()}
    grouped = kind(first, lr=0.1, weight_decay=0.5, groups=GROUPS)
    for step in range(4):
        if step == 2:
            saved = pickle.loads(pickle.dumps(grouped.state_dict()))
            saved["groups"]["layers.0.*"]["lr_factor"] *= 1  # what was loaded is a copy
            grouped = kind(first, lr=0.7, groups={**GROUPS, "layers.0.*": {"lr": 5.0}})
            grouped.load_state_dict(saved)
            saved["groups"].clear()
            assert grouped.lr == 0.1
            grouped.lr *= rate
            for name, optimizer in apart.items():
                optimizer.lr = how[name][0] * rate
        grads = {name: rng.normal(size=(2, 3)) for name in first}
        grouped.step(grads)
        for name, optimizer in apart.items():
            optimizer.step({name: grads[name]})
    for name in first:
        np.testing.assert_allclose(first[name].data, second[name].data, rtol=1e-12, atol=1e-14)


def test_a_group_that_sets_nothing_else_changes_no_bit_and_keeps_float32() -> None:
    first, second = layers(np.float32), layers(np.float32)
    one, other = optim.AdamW(first), optim.AdamW(second, groups={"*": {}, "*.bias": {"weight_decay": np.float64(0.01)}})
    for seed in range(3):
        grads = {name: np.random.default_rng(seed).normal(size=(2, 3)) for name in first}
        one.step(grads)
        other.step(grads)
    assert_same({n: p.data for n, p in first.items()}, {n: p.data for n, p in second.items()})
    scaled = optim.AdamW(second, groups={"*": {"lr": np.float64(0.1)}})
    scaled.step({name: np.ones((2, 3)) for name in second})
    assert {p.dtype.name for p in second.values()} == {"float32"}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"*.scale": {"lr": 0.1}}, r"no parameter matches the group '\*.scale'; the names are layers.0.weight, "),
        (
            {"*": {"momentum": 0.1}},
            r"the group '\*' sets momentum; a group of this optimizer can set lr and weight_decay",
        ),
        ({"*": {"lr": -1}}, r"lr of the group '\*' is -1; it must be a finite number of at least 0"),
        ({"*": {"weight_decay": "0"}}, r"weight_decay of the group '\*' is '0'; it must be"),
        ({"*": 0.1}, "groups must be a dict of patterns"),
        (["*"], "groups must be a dict of patterns"),
    ],
)
def test_groups_are_checked(groups: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"AdamW: {message}"):
        optim.AdamW(layers(), groups=groups)


def test_groups_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"Adam: the group '\*' sets weight_decay; .* can set lr$"):
        optim.Adam(layers(), groups={"*": {"weight_decay": 0.1}})
    with pytest.raises(ValueError, match="lr is 0, and the lr of the group"):
        optim.Adam(layers(), lr=0, groups={"*": {"lr": 0.1}})


def test_a_state_of_other_groups_is_refused(tmp_path: Any) -> None:
    grouped, plain = optim.AdamW(layers(), groups=GROUPS), optim.AdamW(layers())
    assert "groups" not in plain.state_dict()
    state = grouped.state_dict()
    for optimizer, saved, message in (
        (plain, state, "groups is not in the optimizer"),
        (grouped, plain.state_dict(), "groups is missing"),
        (optim.AdamW(layers(), groups={"*.bias": {"lr": 0.1}}), state, r"groups/\*.bias/lr_factor is missing"),
        (
            grouped,
            {**state, "groups": {**GROUPS, "layers.0.*": {"lr_factor": -1.0}}},
            "lr_factor is -1.0, not a finite",
        ),
    ):
        before = optimizer.state_dict()
        with pytest.raises(ValueError, match=f"AdamW: the saved state does not fit: .*{message}"):
            optimizer.load_state_dict(saved)
        assert_same(before, optimizer.state_dict())
    tg.checkpoint.save_checkpoint(tmp_path / "a.safetensors", state)
    grouped.load_state_dict(tg.checkpoint.load_checkpoint(tmp_path / "a.safetensors"))
    assert_same(grouped.state_dict(), state)
