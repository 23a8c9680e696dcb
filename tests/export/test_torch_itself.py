"""Models there and back, where PyTorch is installed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_state import randomize

import tinygrad_mnist as tg
from models.char_lstm import CharLSTM
from models.deep_convnet import DeepConvNet
from models.lenet import LeNet5
from models.mlp import MLP
from models.physics_informed import Oscillator
from models.pretrained import load_classifier
from models.resnet import ResNet
from models.vae import VAE
from models.vision_transformer import VisionTransformer
from tinygrad_mnist.nn import BatchNorm1d, Embedding, Flatten, Linear, ReLU, Sequential

torch = pytest.importorskip("torch")
twins = pytest.importorskip("torch_twins")
torch.set_num_threads(1)  # its threads and NumPy's would wait for each other

RNG = np.random.default_rng(0)
DIGITS = tg.data.synthetic_digits(32, np.random.default_rng(1))
TEXT = RNG.integers(0, 90, (4, 20))
TIMES = RNG.uniform(0, 2, (50, 1))
MODELS: dict[str, tuple[Callable[[], Any], Callable[[], Any], Any]] = {  # a model, its twin, inputs
    "mlp": (lambda: MLP(RNG), twins.mlp, DIGITS[0]),
    "lenet": (lambda: LeNet5(RNG), twins.lenet, DIGITS[0]),
    "resnet": (lambda: ResNet(RNG), twins.ResNet, DIGITS[0]),
    "vision_transformer": (lambda: VisionTransformer(RNG), twins.VisionTransformer, DIGITS[0]),
    "vae": (lambda: VAE(RNG), twins.VAE, DIGITS[0]),
    "char_lstm": (lambda: CharLSTM(90, RNG), lambda: twins.CharLSTM(90), TEXT),
    "physics_informed": (lambda: Oscillator(RNG), lambda: twins.Oscillator().double(), TIMES),
    "deep_convnet, trained": (lambda: load_classifier().model, twins.deep_convnet, DIGITS[0]),
    "deep_convnet, 4": (lambda: DeepConvNet(depth=4, dropout=0.2), lambda: twins.deep_convnet(4, 0.2), DIGITS[0]),
    "deep_convnet, 5": (lambda: DeepConvNet(depth=5, rescale="train"), lambda: twins.deep_convnet(5), DIGITS[0]),
}
NAMES = {"vision_transformer": twins.attention_names}


def tensors(state: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(array) for name, array in state.items()}


def outputs(model: Any, x: Any) -> Any:
    with tg.no_grad():
        out = model(x)
    return (out[0] if isinstance(out, tuple) else out).data


def twin_outputs(twin: Any, x: Any) -> Any:
    twin.eval()
    with torch.inference_mode():
        return twin(twins.images(x) if x.dtype == np.uint8 else torch.from_numpy(x)).numpy()


def assert_close(actual: Any, desired: Any) -> None:
    """Compare outputs in float32: the rounding of each is that of the largest, from whose terms it is summed."""
    np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-5 * max(1, abs(desired).max()))


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name: str) -> None:
    make, make_twin, x = MODELS[name]
    model, twin, names = make(), make_twin(), NAMES.get(name)
    if "trained" not in name:
        randomize(model)
    twin.load_state_dict(tensors(tg.export.to_torch_state_dict(model, names=names)), strict=True)
    expected = outputs(model, x)
    assert_close(twin_outputs(twin, x), expected)

    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.01)
    changed = twin_outputs(twin, x)
    assert abs(changed - expected).max() > 1e-3
    other = make()
    tg.export.from_torch_state_dict(other, twin.state_dict(), names=names)
    assert_close(outputs(other, x), changed)
    again = tg.export.to_torch_state_dict(other, names=names)
    for key, value in twin.state_dict().items():
        np.testing.assert_array_max_ulp(again[key], value.numpy(), 2)


def test_the_shipped_weights_in_double_precision() -> None:
    model, twin = DeepConvNet(dtype=np.float64), twins.deep_convnet().double()
    tg.nn.load_state_dict(model, tg.nn.state_dict(load_classifier().model))
    twin.load_state_dict(tensors(tg.export.to_torch_state_dict(model)))
    x = twins.images(DIGITS[0], torch.float64)
    np.testing.assert_allclose(twin.eval()(x).detach().numpy(), outputs(model, x.numpy()), rtol=1e-10, atol=1e-10)


class Small:
    """Batch normalization and an embedding, which the network of 21 layers lacks."""

    def __init__(self) -> None:
        how: Any = {"rng": np.random.default_rng(0), "dtype": np.float64}
        self.embed = Embedding(256, 3, **how)
        norm = BatchNorm1d(16, dtype=np.float64)
        self.head = Sequential(Flatten(), Linear(3 * 16, 16, **how), norm, ReLU(), Linear(16, 10, **how))

    def __call__(self, x: Any, rng: Any = None) -> tg.Tensor:
        return self.head(self.embed(x[:, 10:14, 10:14]), rng)


class SmallTwin(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.embed = nn.Embedding(256, 3)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, x: Any) -> Any:
        return self.head(self.embed((x[:, 0, 10:14, 10:14] * 255).round().long()))


OPTIMIZERS = {
    "SGD": (lambda p: tg.optim.SGD(p, lr=0.05, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
    "Adam": (lambda p: tg.optim.Adam(p, lr=0.005), lambda p: torch.optim.Adam(p, lr=0.005)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("model", "twin"),
    [
        (
            lambda: DeepConvNet(np.random.default_rng(0), depth=4, dropout=0, dtype=np.float64),
            lambda: twins.deep_convnet(4, 0),
        ),
        (Small, SmallTwin),
    ],
    ids=["deep_convnet", "batch_norm"],
)
def test_training_goes_on_with_the_same_losses(optimizer: str, model: Any, twin: Any) -> None:
    """Both begin with weights that ten steps here have trained, and end with the same."""
    model, twin = model(), twin().double()
    ours, theirs = OPTIMIZERS[optimizer]
    rng, batches = np.random.default_rng(3), [np.arange(32)[i * 8 : i * 8 + 8] for i in range(4)] * 8

    def step(batch: Any, optimizer: Any) -> float:
        loss = tg.cross_entropy(model(DIGITS[0][batch], rng), DIGITS[1][batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    before = ours(tg.nn.parameters(model))
    first = [step(batch, before) for batch in batches[:10]][0]
    twin.load_state_dict(tensors(tg.export.to_torch_state_dict(model)))
    twin.train()
    here, there = ours(tg.nn.parameters(model)), theirs(twin.parameters())
    losses = [[], []]
    for batch in batches[10:30]:
        losses[0].append(step(batch, here))
        x, y = twins.images(DIGITS[0][batch], torch.float64), torch.from_numpy(DIGITS[1][batch]).long()
        loss = torch.nn.functional.cross_entropy(twin(x), y)
        there.zero_grad()
        loss.backward()
        there.step()
        losses[1].append(loss.item())
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
    assert losses[0][-1] < first
    state = tg.export.to_torch_state_dict(model)
    for name, value in twin.state_dict().items():
        np.testing.assert_allclose(state[name], value.numpy(), rtol=1e-5, atol=1e-7)


def test_tied_layers_fit_with_strict_names() -> None:
    layer = Linear(3, 3, rng=RNG)
    model = Sequential(layer, ReLU(), layer)
    tied = torch.nn.Linear(3, 3)
    twin = torch.nn.Sequential(tied, torch.nn.ReLU(), tied)
    twin.load_state_dict(tensors(tg.export.to_torch_state_dict(model)), strict=True)
    x = RNG.normal(size=(4, 3)).astype(np.float32)
    assert_close(twin_outputs(twin, x), outputs(model, x))


def test_reduced_precision_is_refused_with_a_remedy() -> None:
    layer, twin = Linear(2, 2), torch.nn.Linear(2, 2).bfloat16()
    with pytest.raises(TypeError, match=r"weight is torch.bfloat16; .*tensor.float\(\)"):
        tg.export.from_torch_state_dict(layer, twin.state_dict())
    with pytest.raises(TypeError, match=r"the weights are a Linear; pass module.state_dict\(\)"):
        tg.export.from_torch_state_dict(layer, twin)
    tg.export.from_torch_state_dict(layer, twin.float().state_dict())
    np.testing.assert_array_equal(layer.weight.data, twin.weight.detach().numpy().T)


def test_the_program_of_the_manual(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(tg.__file__).parents[1] / "models" / "README.md"
    section = page.read_text(encoding="utf-8").split("## To PyTorch and back\n")[1]
    program = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    exec(compile(program, page.name, "exec"), {})
    assert float(capsys.readouterr().out) < 1e-4
