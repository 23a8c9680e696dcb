"""The models of the gallery as ONNX files: classifiers of any number of images, saliency and gradients of losses."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from onnx_files import RUNTIMES, check_file, run

import tinygrad_mnist as tg
from models.char_lstm import CharLSTM
from models.deep_convnet import DeepConvNet
from models.lenet import LeNet5
from models.logistic_newton import loss as logistic_loss
from models.logistic_newton import threes_and_eights
from models.maml import TASKS, Networks, adapted, sinusoids
from models.mlp import MLP
from models.physics_informed import Oscillator
from models.pretrained import load_classifier
from models.resnet import ResNet
from models.vae import VAE
from models.vision_transformer import VisionTransformer

PIXELS, LABELS = tg.data.synthetic_digits(14, rng=np.random.default_rng(0))
NOISE = np.random.default_rng(1).uniform(0, 0.2, PIXELS.shape)  # on blank paper the maxima of max-pools are ambiguous
FLOATS = (PIXELS / 255 * 0.8 + NOISE).astype(np.float32)
FASTEST = RUNTIMES[-1:]  # onnxruntime where it is installed
CLASSIFIERS = [DeepConvNet, LeNet5, MLP, ResNet, VisionTransformer]
classifiers = pytest.mark.parametrize("kind", CLASSIFIERS, ids=lambda kind: kind.__name__)


@cache
def made(kind: Any) -> Any:
    """The shipped 21 layers, or a model with the statistics of a batch where it needs some."""
    if kind is DeepConvNet:
        return load_classifier().model
    model = kind(np.random.default_rng(0))
    with tg.no_grad():
        model(PIXELS, np.random.default_rng(1))
    return model


def saliency(model: Any, images: Any) -> Any:
    return tg.grad(model(images).max(axis=1).sum(), [images], create_graph=True)[0]


@classifiers
def test_a_classifier_takes_pixels_and_scales_them(kind: Any) -> None:
    model = made(kind)
    file = check_file(model, [PIXELS[:2]], [PIXELS[2:7]], runtimes=FASTEST)
    stored = {array.name for array in file.graph.initializer}
    assert stored >= tg.nn.parameters(model).keys()
    assert {node.op_type for node in file.graph.node}.isdisjoint({"Dropout", "Identity"})
    used = {name for node in file.graph.node for name in node.input}
    assert used >= stored and file.graph.input[0].type.tensor_type.elem_type == 2  # uint8


def test_one_file_takes_batches_of_any_size() -> None:
    model = made(MLP)
    file = tg.export.to_onnx(model, PIXELS[:2])
    for count in (1, 7, 1000):
        images = np.resize(PIXELS, (count, 28, 28))
        for runtime in RUNTIMES:
            np.testing.assert_allclose(run(file, [images], runtime)[0], model(images).data, rtol=1e-5, atol=1e-5)


def test_a_classifier_and_its_saliency_in_one_file() -> None:
    model = made(MLP)

    def both(images: Any) -> Any:
        logits = model(images)
        (slopes,) = tg.grad(logits.max(axis=1).sum(), [images])
        return {"logits": logits, "saliency": slopes}

    file = tg.export.to_onnx(both, FLOATS[:2])
    assert [value.name for value in file.graph.output] == ["logits", "saliency"]
    for runtime in RUNTIMES:
        found = dict(zip(["logits", "saliency"], run(file, [FLOATS[2:7]], runtime), strict=True))
        np.testing.assert_allclose(found["logits"], model(tg.Tensor(FLOATS[2:7])).data, rtol=1e-5, atol=1e-5)
        slopes = tg.explain.saliency(model, FLOATS[2:7])
        np.testing.assert_allclose(found["saliency"], slopes, rtol=1e-5, atol=1e-5)


def test_the_factor_of_the_papers_dropout_is_a_product() -> None:
    model = DeepConvNet(np.random.default_rng(0), depth=4, dropout=0.25)
    file = tg.export.to_onnx(model, FLOATS[:2])
    arrays = {array.name: np.frombuffer(array.raw_data, np.float32) for array in file.graph.initializer}
    products = [node for node in file.graph.node if node.op_type == "Mul"]
    assert [[arrays[name].item() for name in node.input if name in arrays] for node in products] == [[0.75], [0.75]]


def test_pixels_in_a_tensor_are_scaled_to_the_same_bits() -> None:
    model = made(DeepConvNet)
    np.testing.assert_array_equal(model.input(tg.Tensor(PIXELS)).data, model.input(PIXELS).data)


@pytest.mark.slow
@classifiers
def test_saliency_in_a_file(kind: Any) -> None:
    model = made(kind)
    check_file(lambda x: [model(x), saliency(model, x)], [FLOATS[:2]], [FLOATS[2:7]], runtimes=FASTEST)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [DeepConvNet, LeNet5, MLP], ids=lambda kind: kind.__name__)
def test_gradients_of_the_loss_by_the_parameters(kind: Any) -> None:
    model = made(kind)

    def gradients(images: Any, labels: Any) -> Any:
        loss = model.loss(images, labels) if hasattr(model, "loss") else tg.cross_entropy(model(images), labels)
        return [loss, *tg.grad(loss, tg.nn.parameters(model).values())]

    file = check_file(gradients, [FLOATS[:3], LABELS[:3]], [FLOATS[2:9], LABELS[2:9]], runtimes=FASTEST)
    assert len(file.graph.output) == 1 + len(tg.nn.parameters(model))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [LeNet5, MLP], ids=lambda kind: kind.__name__)
def test_second_derivatives_by_the_pixels(kind: Any) -> None:
    model = made(kind)

    def curvature(images: Any) -> Any:
        (slopes,) = tg.grad(tg.logsumexp(model(images), axis=1).sum(), [images], create_graph=True)
        return tg.grad((slopes * slopes).sum(), [images])[0]

    check_file(curvature, [FLOATS[:2]], [FLOATS[2:7]], runtimes=FASTEST)


@pytest.mark.slow
def test_the_other_models_of_the_gallery() -> None:
    rng = np.random.default_rng(0)
    autoencoder = VAE(rng)
    check_file(autoencoder, [PIXELS[:2]], [PIXELS[2:7]])
    lstm = CharLSTM(12, rng)
    text = rng.integers(0, 12, (9, 4))

    def continued(text: Any, hidden: Any, cell: Any) -> Any:
        logits, state = lstm(text, (hidden, cell))
        return [logits, *state]

    states = rng.normal(size=(2, 9, 128)).astype(np.float32)
    check_file(continued, [text[:2], *states[:, :2]], [text[2:], *states[:, 2:]])
    check_file(lambda text: [lstm(text)[0], lstm.bits(text)], [text[:2]], [text[2:]])
    oscillator = Oscillator(rng)
    speed = tg.func.grad(lambda t: oscillator(t).sum())
    times = rng.uniform(0, 2, (9, 1))
    check_file(lambda t: [oscillator(t), speed(t), tg.func.grad(lambda t: speed(t).sum())(t)], [times[:2]], [times[2:]])


@pytest.mark.slow
def test_models_that_are_adapted_by_gradients() -> None:
    rng = np.random.default_rng(0)
    networks = Networks(rng)
    shared = {name: tg.Tensor(p[:1], requires_grad=True) for name, p in tg.nn.state_dict(networks).items()}

    def predicted(x: Any, y: Any, new_x: Any) -> Any:
        return tg.func.functional_call(networks, adapted(networks, shared, x, y), new_x)

    traced, others = sinusoids(rng)[:3], sinusoids(rng)[:3]
    assert len(traced[0]) == TASKS
    check_file(predicted, traced, others, dynamic_batch=False)
    points, labels = threes_and_eights(200, rng)
    points = points[:, ::10]  # five of the features
    weights = rng.normal(size=(2, points.shape[1]))
    hessian = tg.func.hessian(logistic_loss)
    check_file(
        lambda w: [logistic_loss(w, points, labels), hessian(w, points, labels)],
        weights[:1],
        weights[1:],
        dynamic_batch=False,
    )


@pytest.mark.slow
def test_the_21_layers_on_all_test_images() -> None:
    pytest.importorskip("onnxruntime")
    data = tg.data.find_mnist()
    if data.synthetic:
        pytest.skip("no MNIST here: name its folder by TINYGRAD_MNIST_DATA")
    model = made(DeepConvNet)
    file = tg.export.to_onnx(model, data.images[:4])
    (found,) = run(file, [data.test_images], "onnxruntime")
    with tg.no_grad():
        wanted = np.concatenate([model(part).data for part in np.array_split(data.test_images, 20)])
    assert np.abs(found - wanted).max() <= 1e-4
    np.testing.assert_array_equal(found.argmax(1), wanted.argmax(1))
    for count in (1, 7, 1000):
        (part,) = run(file, [data.test_images[:count]], "onnxruntime")
        np.testing.assert_allclose(part, wanted[:count], atol=1e-4)
