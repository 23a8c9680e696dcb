"""A physics-informed network (Raissi et al., 2019): trained by the equation of a damped oscillator, and by no data.

The loss has second derivatives by the time; its `jacobian` by the weights serves the Levenberg-Marquardt method.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_mnist as tg
from tinygrad_mnist.func import functional_call, grad, jacobian

FREQUENCY, FRICTION, END = 6.0, 1.0, 2.0  # u'' + 2 FRICTION u' + FREQUENCY² u = 0 until END; u(0) = 1, u'(0) = 0


class Oscillator:
    """Time (N, 1) -> displacement (N, 1). The factor t² makes it begin as it must."""

    def __init__(self, rng: np.random.Generator, hidden: int = 30) -> None:
        self.first = tg.nn.Linear(1, hidden, rng=rng, dtype=np.float64)
        self.first.weight.data *= 2
        self.first.bias.data = -self.first.weight.data[0] * rng.uniform(0, END, hidden)  # units for all times
        self.last = tg.nn.Linear(hidden, 1, rng=rng, dtype=np.float64)

    def __call__(self, t: Any) -> Any:
        return 1 + t * t * self.last(tg.tanh(self.first(t)))


def exact(t: Any) -> Any:
    w = np.sqrt(FREQUENCY**2 - FRICTION**2)
    return np.exp(-FRICTION * t) * (np.cos(w * t) + FRICTION / w * np.sin(w * t))


def train(steps: int, rng: np.random.Generator) -> Callable[[Any], Any]:
    """Return the displacement as a function of time (N, 1)."""
    model, t = Oscillator(rng), np.linspace(0, END, 30)[:, None]
    params, best, damping, cost = tg.nn.state_dict(model), {}, 1.0, np.inf

    def residuals(params: Any) -> Any:
        speed = grad(lambda t: functional_call(model, params, t).sum())
        acceleration = grad(lambda t: speed(t).sum())
        rest = (acceleration(t) + 2 * FRICTION * speed(t)) / FREQUENCY**2 + functional_call(model, params, t)
        return rest.reshape(-1), rest.reshape(-1)

    for _ in range(steps):
        slopes, rest = jacobian(residuals, has_aux=True)(params)
        better = (rest.data**2).sum() < cost  # else the step was too long: try a shorter one from the same point
        damping *= 0.3 if better else 4.0
        if better:
            best, cost, y = params, (rest.data**2).sum(), rest.data
            a = np.concatenate([s.data.reshape(len(t), -1) for s in slopes.values()], axis=1)
        step = iter(np.linalg.solve(a.T @ a + damping * np.eye(a.shape[1]), a.T @ y))
        params = {name: p - np.fromiter(step, float, p.size).reshape(p.shape) for name, p in best.items()}
    return lambda t: functional_call(model, best, t).data


if __name__ == "__main__":
    fit, times = train(60, np.random.default_rng(0)), np.linspace(0, END, 200)[:, None]
    print(f"largest error of a displacement between -1 and 1: {np.abs(fit(times) - exact(times)).max():.1e}")
