"""Learning to learn (MAML, Finn et al., 2017): weights from which one step on ten points fits a new sinusoid."""

from typing import Any

import numpy as np

import tinygrad_mnist as tg
from tinygrad_mnist.func import functional_call, grad

TASKS = 25  # at a time: each has weights of its own after the step


class Networks:
    """A network 1 -> 40 -> 40 -> 1 for each task: x (TASKS, N, 1) -> (TASKS, N, 1)."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.layers = [tg.nn.Linear(*sizes, init="xavier", rng=rng) for sizes in ((1, 40), (40, 40), (40, 1))]
        for layer in self.layers:
            layer.weight, layer.bias = (tg.Tensor(np.tile(p.data, (TASKS, 1, 1))) for p in (layer.weight, layer.bias))

    def __call__(self, x: Any) -> tg.Tensor:
        return self.layers[2](tg.tanh(self.layers[1](tg.tanh(self.layers[0](x)))))


def sinusoids(rng: np.random.Generator) -> tuple[Any, ...]:
    """Draw a sinusoid for each task: x and y of ten points to learn from, x and y of ten others, (TASKS, 10, 1)."""
    height, phase = rng.uniform(0.5, 5, (TASKS, 1, 1)), rng.uniform(0, np.pi, (TASKS, 1, 1))
    x = rng.uniform(-5, 5, (TASKS, 20, 1)).astype(np.float32)
    y = (height * np.sin(x + phase)).astype(np.float32)
    return x[:, :10], y[:, :10], x[:, 10:], y[:, 10:]


def adapted(model: Networks, shared: Any, x: Any, y: Any, rate: float = 0.05) -> Any:
    """Weights of each task: one step from the shared ones, on its own points."""
    params = {name: tg.broadcast_to(p, (TASKS, *p.shape[1:])) for name, p in shared.items()}
    slopes = grad(lambda params: TASKS * tg.mse_loss(functional_call(model, params, x), y))(params)
    return {name: p - rate * slopes[name] for name, p in params.items()}


def error(model: Networks, shared: Any, rng: np.random.Generator, rate: float = 0.05) -> tg.Tensor:
    """Mean squared error on new points, after the step."""
    x, y, new_x, new_y = sinusoids(rng)
    return tg.mse_loss(functional_call(model, adapted(model, shared, x, y, rate), new_x), new_y)


def train(steps: int, rng: np.random.Generator, rate: float = 0.05) -> tuple[Networks, Any]:
    """Return the networks and the weights that they share; with rate 0, those that fit all sinusoids at once."""
    model = Networks(rng)
    shared = {name: tg.Tensor(p[:1], requires_grad=True) for name, p in tg.nn.state_dict(model).items()}
    optimizer = tg.optim.Adam(shared)
    for step in range(steps):
        optimizer.lr = 0.01 * tg.schedules.cosine(step, steps)
        optimizer.step(dict(zip(shared, tg.grad(error(model, shared, rng, rate), shared.values()), strict=True)))
    return model, shared


if __name__ == "__main__":
    trained = train(2000, np.random.default_rng(0))
    errors = [error(*trained, np.random.default_rng(seed)).item() for seed in range(20)]
    print(f"mean squared error {np.mean(errors):.2f} after one step on ten points of a new sinusoid")
