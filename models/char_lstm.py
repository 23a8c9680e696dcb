"""A character LSTM (Hochreiter and Schmidhuber, 1997) that learns to write like NumPy's documentation."""

import math
from typing import Any

import numpy as np

import tinygrad_mnist as tg
from tinygrad_mnist.nn import Embedding, Linear

WIDTH, LENGTH, BATCH = 128, 48, 32
State = tuple[tg.Tensor, tg.Tensor]  # h and c, (N, WIDTH) each


class CharLSTM:
    """Characters (N, T) and the state before them -> logits of the next ones (N, T, K) and the state behind them."""

    def __init__(self, characters: int, rng: np.random.Generator) -> None:
        self.embed = Embedding(characters, 32, rng=rng)
        self.gates = Linear(32 + WIDTH, 4 * WIDTH, rng=rng, init="xavier")
        self.out = Linear(WIDTH, characters, rng=rng, init="xavier")

    def __call__(self, text: Any, state: State | None = None) -> tuple[tg.Tensor, State]:
        h, c = state or (tg.zeros((len(text), WIDTH), dtype=np.float32),) * 2
        outputs = []
        for x in self.embed(text).swapaxes(0, 1):  # (N, 32), T times
            i, f, g, o = tg.split(self.gates(tg.concatenate([x, h], axis=1)), 4, axis=1)
            c = tg.sigmoid(f + 1.0) * c + tg.sigmoid(i) * tg.tanh(g)
            h = tg.sigmoid(o) * tg.tanh(c)
            outputs.append(h)
        return self.out(tg.stack(outputs, axis=1)), (h, c)

    def bits(self, text: Any) -> tg.Tensor:
        """Bits per character: how surprising each is after those before it."""
        return tg.cross_entropy(self(text[:, :-1])[0].swapaxes(1, 2), text[:, 1:]) / math.log(2)


def train(steps: int = 1200, seed: int = 0) -> tuple[float, str]:
    """Return the bits per character on the last twentieth of the text, which is not trained on, and what it writes."""
    docs = "\n".join(getattr(np, name).__doc__ or "" for name in dir(np))
    alphabet, text = np.unique(list(docs.encode("ascii", "ignore").decode()), return_inverse=True)
    rng, end, window = np.random.default_rng(seed), len(text) * 19 // 20, np.arange(LENGTH + 1)
    model = CharLSTM(len(alphabet), rng)
    optimizer = tg.optim.Adam(tg.nn.parameters(model))
    for step in range(steps):
        model.bits(text[rng.integers(0, end - LENGTH, (BATCH, 1)) + window]).backward()
        optimizer.lr = 0.005 * tg.schedules.one_cycle(step, steps)
        optimizer.step()
        optimizer.zero_grad()
    with tg.no_grad():
        held_out = model.bits(text[np.arange(end, len(text) - LENGTH, LENGTH)[:, None] + window]).item()
        written, state = [0], None  # 0 is the line feed
        for _ in range(300):
            logits, state = model(np.array([written[-1:]]), state)
            written.append(int(rng.choice(len(alphabet), p=tg.softmax(1.5 * logits.astype(float)).data.ravel())))
    return held_out, "".join(alphabet[written[1:]])


if __name__ == "__main__":
    print("{:.2f} bits per character of documentation that it has not seen; it writes:\n{}".format(*train()))
