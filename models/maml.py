"""Learning to learn (MAML, Finn et al., 2017): weights from which one step on ten points fits a new sinusoid.

It shows `functional_call`, and a gradient through a step of gradient descent. `python -m models.maml` trains it.
"""

from typing import Any

import numpy as np

import tinygrad_mnist as tg
from tinygrad_mnist.func import functional_call, grad

TASKS = 25  # at a time: each has its own network after the step


class Networks:
    """A network 1 -> 40 -> 40 -> 1 for each task; numbers x and y are (TASKS, N, 1)."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.layers = [tg.nn.Linear(*sizes, init="xavier", rng=rng) for sizes in ((1, 40), (40, 40), (40, 1))]
        for layer in self.layers:
            layer.weight, layer.bias = (tg.Tensor(np.tile(p.data, (TASKS, 1, 1))) for p in (layer.weight, layer.bias))

    def loss(self, x: Any, y: Any) -> Any:  # the sum of the tasks' mean squared errors
        first, second, last = self.layers
        return ((last(tg.tanh(second(tg.tanh(first(x))))) - y) ** 2).mean() * TASKS


def sinusoids(rng: np.random.Generator) -> tuple[Any, ...]:
    """Draw a sinusoid for each task: x and y of ten points to learn from, x and y of ten others, (TASKS, 10, 1)."""
    height, phase = rng.uniform(0.5, 5, (TASKS, 1, 1)), rng.uniform(0, np.pi, (TASKS, 1, 1))
    x = rng.uniform(-5, 5, (TASKS, 20, 1)).astype(np.float32)
    y = (height * np.sin(x + phase)).astype(np.float32)
    return x[:, :10], y[:, :10], x[:, 10:], y[:, 10:]


def train(steps: int, rng: np.random.Generator, learn_to_learn: bool = True) -> float:
    """Return the mean squared error for new sinusoids, after a step on each; or from weights that fit all at once."""
    model = Networks(rng)
    shared = {name: tg.Tensor(values[:1], requires_grad=True) for name, values in tg.nn.state_dict(model).items()}
    optimizer = tg.optim.Adam(shared)

    def error(adapt: bool) -> Any:
        x, y, new_x, new_y = sinusoids(rng)
        params = {name: tg.broadcast_to(p, (TASKS, *p.shape[1:])) for name, p in shared.items()}
        if adapt:
            slopes = grad(lambda p: functional_call(model.loss, p, x, y))(params)
            params = {name: p - 0.05 * slopes[name] for name, p in params.items()}
        return functional_call(model.loss, params, new_x, new_y) / TASKS

    for step in range(steps):
        optimizer.lr = 0.01 * tg.schedules.cosine(step, steps)
        slopes = tg.grad(error(learn_to_learn), shared.values())
        optimizer.step(dict(zip(shared, slopes, strict=True)))
    return float(np.mean([error(adapt=True).item() for _ in range(20)]))


if __name__ == "__main__":
    learned, joint = (train(2000, np.random.default_rng(0), learn) for learn in (True, False))
    print(f"mean squared error after a step on 10 points: {learned:.2f}; from jointly trained weights: {joint:.2f}")
