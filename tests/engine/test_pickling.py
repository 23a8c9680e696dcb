"""Ops are values: they are copied as themselves and pickled by name, alone and in whatever holds them."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from tinygrad_mnist import ops, record

EVERY = [value for name in ops.__all__ if isinstance(value := getattr(ops, name), tg.Primitive)]
MODULES = (*ops.FAMILIES, ops.linalg, record)
EVERY += [value for module in MODULES for value in vars(module).values() if isinstance(value, tg.Primitive)]


@tg.primitive
def softplus(x: Any) -> Any:
    return np.logaddexp(0, x)


softplus.defvjp(lambda g, out, x: g * tg.sigmoid(x))
arctan = tg.primitive(np.arctan)


class Activated:
    """A layer that holds ops in every way."""

    shared = tg.tanh

    @tg.primitive
    def own(x: Any) -> Any:  # noqa: N805  # an op, and no method
        return 2 * x

    def __init__(self) -> None:
        self.linear, self.activation, self.last = tg.nn.Linear(3, 2), tg.relu, softplus
        self.normalized = partial(tg.softmax, axis=0)
        self.reduced = [partial(tg.sum, axis=0), {"loss": tg.cross_entropy}]

    def __call__(self, x: Any, rng: Any = None) -> Any:
        return self.reduced[0](self.normalized(self.last(self.activation(self.linear(x)))))


@pytest.mark.parametrize("op", dict.fromkeys([*EVERY, softplus, arctan, Activated.own]), ids=lambda op: op.__name__)
def test_an_op_is_copied_and_pickled_as_itself(op: Any) -> None:
    assert copy.copy(op) is op and copy.deepcopy([op])[0] is op
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(op, protocol)) is op


def test_a_model_that_holds_ops_is_copied_and_pickled() -> None:
    model, x = Activated(), np.ones((4, 3), np.float32)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.activation is tg.relu and other.last is softplus
        assert other.linear.weight is not model.linear.weight
        np.testing.assert_array_equal(other(x).data, model(x).data)
        assert list(tg.nn.parameters(other)) == list(tg.nn.parameters(model))


def test_bound_methods_and_operators_of_tensors() -> None:
    t = tg.Tensor([-1.0, 2.0])
    for method in (t.relu, t.sum, t.round, partial(t.sum, axis=0)):
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(method))().data, method().data)


def test_an_op_as_an_attribute_of_a_class_is_a_method() -> None:
    class Layer:
        activation = tg.relu

    assert Layer.activation is tg.relu and Layer().activation.__func__ is tg.relu


def test_an_op_without_a_name_of_its_own_says_so() -> None:
    @tg.primitive
    def local(x: Any) -> Any:
        return x

    for op in (local, tg.primitive(lambda x: x), tg.primitive(np.tan)):
        assert copy.deepcopy({"op": op})["op"] is op
        with pytest.raises(pickle.PicklingError, match=r"cannot pickle <primitive .*top level of a module"):
            pickle.dumps(op)


@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_tensor_keeps_whether_it_requires_a_gradient_and_which_it_has(requires_grad: bool) -> None:
    x = tg.Tensor(np.ones(2, np.float32), requires_grad)
    if requires_grad:
        (x * x).sum().backward()
    for other in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert other.requires_grad is requires_grad and other.dtype == np.float32
        assert (other.grad is None) == (x.grad is None)
        if x.grad is not None:
            np.testing.assert_array_equal(other.grad.data, x.grad.data)


SCRIPT = """
import multiprocessing
from functools import partial
import numpy as np
import tinygrad_mnist as tg

@tg.primitive
def cube(x):
    return x**3

cube.defvjp(lambda g, out, x: g * 3 * x**2)

class Model:
    def __init__(self):
        self.ops = [tg.relu, cube, partial(tg.sum, axis=0)]
        self.weight = tg.Tensor([2.0, -1.0], requires_grad=True)

    def __call__(self, x):
        x = x * self.weight
        for op in self.ops:
            x = op(x)
        return x

def compute(model):
    return model(np.ones(2)).item(), model

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        value, model = pool.apply(compute, (Model(),))
    print(value, model.ops[0] is tg.relu, model.ops[1] is cube, model.weight.requires_grad)
"""


def test_a_model_with_the_ops_of_a_script_crosses_to_a_fresh_process_and_back(tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "8.0 True True True\n", done.stderr
