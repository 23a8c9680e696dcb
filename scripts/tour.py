#!/usr/bin/env python
"""A tour in 80 lines, from a number with a gradient to a network of 21 layers: read a step, then what it prints."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from any folder, installed or not
import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet

rng = np.random.default_rng(0)
# A number with a gradient. Each operation records what its result was made from; backward() walks that record back.
x = tg.Tensor(3.0, requires_grad=True)
y = x * x + 2 * x
y.backward()
print(f"1. at x = 3, y = x² + 2x is {y:.0f}, and its slope is {x.grad:.0f}, as the formula 2x + 2 says")

# Many numbers: one backward pass gives the slope by each of them. Recorded, it can be differentiated again.
v = tg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
(slopes,) = tg.grad((v**3).sum(), [v], create_graph=True)
print(f"2. v³ has the slopes {slopes.data}, and these have the slopes {tg.grad(slopes.sum(), [v])[0].data}")


# An operation of your own: arrays in, an array out. Its rule turns g, the slope by the result, into that by x.
@tg.primitive
def softplus(x: Any) -> Any:
    return np.logaddexp(0, x)


softplus.defvjp(lambda g, out, x: g * tg.sigmoid(x))
print("3. the right rule:", tg.testing.check_gradients(softplus, [-2.0, 0.5]).verdict)  # compared with differences
softplus.defvjp(lambda g, out, x: g * tg.tanh(x))  # this one is wrong
try:
    tg.testing.check_gradients(softplus, [-2.0, 0.5])
except tg.testing.GradientMismatch as mismatch:
    print("   the wrong rule:", str(mismatch).splitlines()[0])

# A linear model, by gradient descent: compute the mean squared error, then take a small step against its gradient.
inputs = rng.normal(size=(100, 2))
targets = inputs @ [2.0, -1.0] + 0.5
weight, bias = tg.Tensor([0.0, 0.0], requires_grad=True), tg.Tensor(0.0, requires_grad=True)
for _ in range(100):
    error = ((inputs @ weight + bias - targets) ** 2).mean()
    for p, slope in zip((weight, bias), tg.grad(error, [weight, bias]), strict=True):
        p.data -= 0.1 * slope.data
print(f"4. the data were made with 2, -1 and 0.5; found: {weight.data.round(3)} and {bias:.3f}")

# A network by hand. Two linear maps with a ReLU between them tell which points lie in a circle, where one map cannot.
points = rng.uniform(-1, 1, size=(500, 2)).astype(np.float32)
inside = ((points**2).sum(axis=1) < 0.6).astype(int)
padded = np.column_stack([points, np.ones(500, np.float32)])  # the ones serve as a bias
maps = [tg.nn.initial_weights(shape, shape[0], "he", rng) for shape in ((3, 32), (32, 2))]
for _ in range(300):
    loss = tg.cross_entropy(tg.relu(padded @ maps[0]) @ maps[1], inside)
    for p, slope in zip(maps, tg.grad(loss, maps), strict=True):
        p.data -= 0.5 * slope.data
by_hand = np.mean((tg.relu(padded @ maps[0]) @ maps[1]).argmax(axis=1).data == inside)
# With layers it is shorter. An optimizer takes their parameters, and `fit` yields the steps of training.
net = tg.nn.Sequential(tg.nn.Linear(2, 32, rng=rng), tg.nn.ReLU(), tg.nn.Linear(32, 2, rng=rng))
list(tg.training.fit(net, tg.optim.Adam(tg.nn.parameters(net), lr=0.02), points, inside, epochs=40, rng=rng))
layers = tg.training.accuracy(net, points, inside)
print(f"5. in the circle or not: {by_hand:.0%} right by hand, {layers:.0%} with layers; {inside.mean():.0%} are in it")

# Convolution: a filter slides over an image, here one that finds vertical edges. Pooling keeps the largest of four.
images, labels = tg.data.synthetic_digits(2500, rng=rng)  # drawn; scripts/train_mnist.py takes MNIST itself
image = tg.Tensor(tg.data.as_input(images[:1]), requires_grad=True)  # (1, 1, 28, 28)
pooled = tg.max_pool2d(tg.conv2d(image, np.array([[[[1, 0, -1]] * 3]], np.float32)), 2)  # (1, 1, 13, 13)
(slope,) = tg.grad(pooled.sum(), [image])
print(f"6. an image of 28 x 28, and 13 x 13 edges: {np.count_nonzero(slope.data)} of 784 pixels matter to their sum")

# 21 layers: convolutions, ReLUs, pooling, linear maps, dropout and the loss; shards of a batch train on all cores.
model = DeepConvNet(rng, logit_dropout=0.0)
muon, train, test = tg.optim.Muon(tg.nn.parameters(model), lr=0.02), slice(2000), slice(2000, None)
steps = tg.training.fit(model, muon, images[train], labels[train], epochs=2, batch_size=100, rng=rng)
losses = [step.loss for step in steps]
right = tg.training.accuracy(model, images[test], labels[test])
print(f"7. loss {losses[0]:.2f} at first, {losses[-1]:.2f} in step {len(losses)}; {right:.0%} of new digits are right")
