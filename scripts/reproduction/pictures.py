"""The report's pictures: functions of stored results, and of weights that belong to them, to Matplotlib figures.

Colours are those of Okabe and Ito (2008), which people with any colour vision can tell apart; what matters differs in
shape, too.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist.storage.files import write_atomically

from .experiments import (
    ACCURACY,
    CANDIDATES,
    DEPTH_NAMES,
    DEPTHS,
    EPOCHS,
    FINAL,
    NOTHING,
    PLATEAU,
    RATES,
    TARGETS,
    candidate_variant,
)
from .running import BINS
from .verdicts import Result, Results, measured, step_weights

BLUE, ORANGE, GREEN, RED, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#888888"
ACCURACY_LABEL, LOSS_LABEL = "correct (%)", "mean cross-entropy (nats)"
LAYERS = {  # of the 21 layers, those with weights
    "layers.0.weight": "conv1",
    "layers.2.weight": "conv2",
    "layers.5.weight": "conv3",
    "layers.7.weight": "conv4",
    "layers.10.weight": "conv5",
    "layers.12.weight": "conv6",
    "layers.15.weight": "affine1",
    "layers.18.weight": "affine2",
}


def learning_rates(results: Results) -> Figure:
    """Bars of the final accuracy by learning rate, ours beside the paper's."""
    figure, (axes,) = panels(1, "Final test accuracy by learning rate [paper protocol]", width=7)
    places = np.arange(len(RATES))
    axes.bar(
        places - 0.2,
        [100 * value for value in RATES.values()],
        0.38,
        color=GREY,
        hatch="//",
        edgecolor="white",
        label="paper",
    )
    for place, rate in zip(places, RATES, strict=True):
        axes.text(
            place - 0.2, 100 * RATES[rate] + 1, f"{100 * RATES[rate]:.1f}", ha="center", fontsize=8, color="#555555"
        )
        if (ours := measured(results, rate, "test_accuracy")) is not None:
            axes.bar(place + 0.2, 100 * ours.mean, 0.38, color=BLUE)
            axes.plot([place + 0.2] * len(ours.values), np.multiply(ours.values, 100), "o", color="black", ms=3)
            axes.text(
                place + 0.2, 100 * max(ours.values) + 1, f"{100 * ours.mean:.1f}", ha="center", fontsize=8, color=BLUE
            )
    axes.bar([0], [0], color=BLUE, label="ours, mean")  # for the legend
    axes.plot([], [], "o", color="black", ms=3, label="each seed")
    axes.set(
        xticks=places, xticklabels=list(RATES), xlabel="learning rate (AdaGrad)", ylabel=ACCURACY_LABEL, ylim=(0, 108)
    )
    axes.legend(loc="upper right")
    return figure


def initialisations(results: Results) -> Figure:
    """Mean loss of each epoch, He against Xavier."""
    figure, (axes,) = panels(1, "Mean training loss by initial weights [paper protocol]", width=7)
    axes.axhspan(*PLATEAU, xmin=0.5, color=RED, alpha=0.25, lw=0, label="paper: Xavier after 4 epochs")
    for name, color, marker in (("He", BLUE, "o"), ("Xavier", RED, "s")):
        spread_line(axes, results, name, [f"mean_loss@{e}" for e in EPOCHS], EPOCHS, color, marker, f"ours: {name}")
    axes.set(xlabel="epoch", ylabel=LOSS_LABEL, ylim=(0.8, None))
    axes.legend()
    return figure


def accuracies(results: Results) -> Figure:
    """Accuracy before each epoch, on 1,000 images each; all of it, and enlarged."""
    figure, both = panels(2, "Accuracy near the start of each epoch, on 1,000 images [paper protocol]")
    for axes, low in zip(both, (0, 95), strict=True):
        for kind, color, marker in (("train", ORANGE, "s"), ("test", BLUE, "o")):
            spread_line(
                axes,
                results,
                "paper",
                [f"{kind}_accuracy@{e}" for e in EPOCHS],
                EPOCHS,
                color,
                marker,
                f"ours: {kind}",
                100,
            )
            paper = np.multiply(ACCURACY[kind], 100)
            axes.plot(
                EPOCHS, paper, color=color, ls="--", marker=marker, mfc="white", ms=5, lw=1, label=f"paper: {kind}"
            )
        axes.set(xlabel="epoch", ylabel=ACCURACY_LABEL, ylim=(low, 100 + (100 - low) / 50))
    both[0].legend(loc="lower right")
    return figure


def depths(results: Results) -> Figure:
    """Mean loss of the first three epochs for three depths."""
    figure, (axes,) = panels(1, "Mean training loss by depth [paper protocol]", width=7)
    for (depth, name), color, marker in zip(DEPTH_NAMES.items(), (BLUE, ORANGE, GREEN), "os^", strict=True):
        epochs = EPOCHS[:3]
        spread_line(
            axes,
            results,
            name,
            [f"mean_loss@{e}" for e in epochs],
            epochs,
            color,
            marker,
            f"ours: {depth} convolutions",
        )
        axes.plot(
            epochs, DEPTHS[depth], color=color, ls="--", marker=marker, mfc="white", lw=1, label=f"paper: {depth}"
        )
    axes.set(xlabel="epoch", ylabel=LOSS_LABEL, xticks=epochs)
    axes.legend()
    return figure


def steps(results: Results) -> Figure | None:
    """Loss of every step of one run."""
    result = next((result for result in results.get("paper", ()) if result["losses"]), None)
    if result is None:
        return None
    figure, (axes,) = panels(
        1, f"Training loss of every step (seed {result['config']['seed']}) [paper protocol]", width=7
    )
    per_epoch, losses = result["steps_per_epoch"], np.array(result["losses"])
    at = 1 + np.arange(1, len(losses) + 1) / per_epoch
    window = min(50, len(losses))
    axes.axhspan(0.8, 1.05, color=GREY, alpha=0.3, lw=0, label="the paper's plateau, 0.8–1.05")
    axes.plot(at, losses, color=SKY, lw=0.7, label="each step")
    weights, several = step_weights(result), np.ones(window)
    smooth = np.convolve(losses * weights, several, "valid") / np.convolve(weights, several, "valid")
    axes.plot(at[window // 2 :][: len(smooth)], smooth, color=BLUE, lw=2, label=f"mean of {window} steps")
    axes.set(xlabel="epoch", ylabel="cross-entropy (nats)", ylim=(0, max(2.6, losses.max() + 0.1)))
    axes.legend()
    return figure


def explanations(results: Results) -> Figure | None:
    """What each mistake of the listings does to each figure that needs an explanation."""
    names = [NOTHING, *CANDIDATES]
    shown = [target for target in TARGETS if any(results.get(candidate_variant(name, target)) for name in CANDIDATES)]
    if not shown:
        return None
    title = "What the mistakes of the paper's listings do, each put back"
    figure, all_axes = panels(len(shown), title, width=3 + 2.2 * len(shown), height=4)
    for number, (axes, target) in enumerate(zip(all_axes, shown, strict=True)):
        percent = 100 if "accuracy" in TARGETS[target][2] else 1
        axes.axvline(percent * TARGETS[target][3], color=RED, ls="--", label="paper")
        for row, name in enumerate(names):
            ours = measured(results, candidate_variant(name, target), TARGETS[target][2])
            color, marker = (BLUE, "o") if name == NOTHING else ("black", "s")
            if ours is None:
                failed = any(result["failed"] for result in results.get(candidate_variant(name, target), ()))
                annotate(axes, row, 0.5, "training fails" if failed else "not run")
            elif percent * ours.mean > 4 and percent == 1:
                annotate(axes, row, 0.85, f"{ours.mean:.1f} →")
            else:
                axes.plot(np.multiply(ours.values, percent), [row] * len(ours.values), marker, color=color, ms=5)
        axes.set(
            xlabel="correct (%)" if percent == 100 else LOSS_LABEL,
            ylim=(len(names) - 0.5, -0.5),
            yticks=range(len(names)),
        )
        axes.set(xlim=(0, 102) if percent == 100 else (0.5, 4), yticklabels=names if number == 0 else [])
        axes.set_title(target.replace(": ", ":\n"), fontsize=9)
    all_axes[0].legend(loc="upper right", fontsize=8)
    return figure


def annotate(axes: Axes, row: float, across: float, text: str) -> None:
    """Write into a row, at a share of the width."""
    axes.text(across, row, text, transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=8)


def recipes(results: Results) -> Figure:
    """Accuracy on the test images against seconds of training, and that of the weights taken in the end."""
    figure, (axes,) = panels(1, "Test accuracy against time", width=7)
    lowest = 97.5
    for name, color, marker in (("paper's recipe", ORANGE, "s"), ("best recipe", BLUE, "o")):
        for number, result in enumerate(results.get(name, ())):
            known = [
                100 * row.get("test_accuracy", math.nan) for row in result["history"][1:]
            ]  # older code did not know
            way, end = (
                (f"{name}, after each epoch", f"{name}, weights taken in the end") if number == 0 else (None, None)
            )
            axes.plot(result["seconds"], known, color=color, lw=1, marker=marker, ms=3, label=way)
            lowest = min([lowest, *(value - 0.5 for value in known[-1:] if not math.isnan(value))])
            if not result["failed"]:
                lowest = min(lowest, 100 * result["test_accuracy"] - 0.5)
                star = {"color": color, "ms": 13, "mec": "black", "mew": 0.6}
                axes.plot(result["seconds"][-1], 100 * result["test_accuracy"], "*", label=end, **star)
    axes.axhline(100 * FINAL, color=GREY, ls="--", lw=1, label=f"the paper's best, {100 * FINAL:.2f} %")
    axes.set(xlabel="seconds of training, measuring included", ylabel=ACCURACY_LABEL, ylim=(lowest, 100))
    axes.legend(loc="best", fontsize=8)
    return figure


def confusion(result: Result) -> Figure:
    """How often each digit is taken for each other."""
    figure, (axes,) = panels(1, "Test images by true and guessed digit", width=5, height=4.6)
    counts = np.array(result["confusion"])
    mistakes = counts * (1 - np.eye(10, dtype=int))
    axes.imshow(mistakes, cmap="Oranges", vmax=max(1, 1.3 * mistakes.max()))
    for (true, guess), count in np.ndenumerate(counts):
        if count:
            axes.text(
                guess, true, count, ha="center", va="center", fontsize=7, color="#666666" if true == guess else "black"
            )
    axes.set(xlabel="guessed digit", ylabel="true digit", xticks=range(10), yticks=range(10))
    axes.grid(False)
    return figure


def mistakes(result: Result, data: tg.data.Dataset, count: int = 18) -> Figure | None:
    """The test images whose wrong digit the network is surest of."""
    wrong = sorted(result["wrong"], key=lambda row: -row[3])[:count]
    if not wrong:
        return None
    figure = Figure(figsize=(7, 1.35 * -(-len(wrong) // 6) + 0.4), layout="constrained")
    grid = figure.subplots(-(-len(wrong) // 6), 6, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, (index, true, guess, sure) in zip(grid, wrong, strict=False):
        axes.imshow(data.test_images[index], cmap="gray_r", vmin=0, vmax=255)
        axes.set_title(f"{true}, guessed {guess} ({100 * sure:.0f} %)", fontsize=7)
    figure.suptitle("Most confidently wrong: true digit, guess and its probability", fontsize=10)
    return figure


def filters(model: DeepConvNet) -> Figure:
    """The 3 x 3 filters of the first convolution."""
    weight = model.layers[0].weight.data[:, 0]
    figure = Figure(figsize=(6, 2.2), layout="constrained")
    grid = figure.subplots(2, 8).ravel()
    largest = np.abs(weight).max()
    for number, (axes, image) in enumerate(zip(grid, weight, strict=True)):
        drawn = axes.imshow(image, cmap="PuOr", vmin=-largest, vmax=largest)
        axes.set_title(number, fontsize=7)
        axes.axis("off")
    figure.colorbar(drawn, ax=list(grid), label="weight", shrink=0.8)
    figure.suptitle("Filters of the first convolution", fontsize=10)
    return figure


def feature_maps(model: DeepConvNet, image: Any, each: int = 10) -> Figure:
    """What the convolutions and pools make of one digit."""
    x = model.input(image[None])
    rows = [("input", x.data[0])]
    convolutions = pools = 0
    with tg.no_grad():
        for layer in model.layers[:-1]:
            x = layer(x)
            kind = type(layer).__name__
            convolutions += kind == "Conv2d"
            pools += kind == "MaxPool2d"
            if x.ndim == 4 and kind in ("ReLU", "MaxPool2d"):
                rows.append((f"pool{pools}" if kind == "MaxPool2d" else f"conv{convolutions}", x.data[0]))
        probability = tg.softmax(x).data[0]
    figure = Figure(figsize=(7, 0.72 * len(rows) + 1.4), layout="constrained")
    spec = figure.add_gridspec(len(rows) + 1, each, height_ratios=[1] * len(rows) + [1.3])
    for row, (name, maps) in enumerate(rows):
        for column, image in enumerate(maps[:each]):
            axes = figure.add_subplot(spec[row, column])
            axes.imshow(image, cmap="gray_r" if name == "input" else "viridis")
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel(
                    f"{name}\n{maps.shape[1]}×{maps.shape[2]}", fontsize=7, rotation=0, ha="right", va="center"
                )
    axes = figure.add_subplot(spec[-1, :])
    axes.bar(range(10), 100 * probability, color=BLUE)
    axes.set(xticks=range(10), ylim=(0, 100), xlabel="digit")
    axes.set_ylabel("probability (%)", fontsize=8)
    figure.suptitle(
        f"One digit on its way through the network (the first {each} maps of each layer, after ReLU)", fontsize=10
    )
    return figure


def histograms(result: Result, title: str) -> Figure:
    """Sizes of weights and gradients, layer by layer, from epoch to epoch."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    grid = figure.subplots(2, len(LAYERS), sharex=True, sharey="row", squeeze=False)
    for row, kind in zip(grid, ("weight", "gradient"), strict=True):
        for axes, (layer, name) in zip(row, LAYERS.items(), strict=False):
            found = [epoch[layer][kind] for epoch in result["histograms"] if layer in epoch]
            if not found:
                axes.axis("off")
                continue
            shares = np.array([np.divide(h["counts"], max(1, sum(h["counts"]))) for h in found])
            extent = (-0.5, len(found) - 0.5, BINS[0], BINS[1])
            axes.imshow(shares.T, aspect="auto", origin="lower", cmap="Blues", vmax=0.25, extent=extent)
            axes.plot(range(len(found)), [middle(h) for h in found], color=RED, lw=1.5, label="median")
            if kind == "weight":
                axes.set_title(name, fontsize=9)
            else:
                axes.set_xlabel("epochs")
    grid[0, 0].set(ylabel="log₁₀ |weight|", ylim=(-4, 1))
    grid[1, 0].set(ylabel="log₁₀ |gradient|", ylim=(-8, 1))
    grid[0, 0].legend(fontsize=7, loc="lower left")
    figure.suptitle(title, fontsize=10)
    return figure


def gradients(runs: Mapping[str, Result]) -> Figure | None:
    """Size of the gradients by layer, before and after training, in runs that go well and in others."""
    runs = {name: result for name, result in runs.items() if len(result["histograms"]) > 1}
    if not runs:
        return None
    figure, all_axes = panels(
        len(runs), "Gradients by layer: median, and the middle 80 %", width=2 + 2.4 * len(runs), height=3.6
    )
    for number, (axes, (name, result)) in enumerate(zip(all_axes, runs.items(), strict=True)):
        for when, color, marker, label in ((0, ORANGE, "s", "untrained"), (-1, BLUE, "o", "trained")):
            found = [result["histograms"][when][layer]["gradient"] for layer in LAYERS]
            low, mid, high = ([middle(h, share) for h in found] for share in (0.1, 0.5, 0.9))
            axes.fill_between(range(len(found)), low, high, color=color, alpha=0.2, lw=0)
            axes.plot(range(len(found)), mid, color=color, marker=marker, ms=4, label=label)
        axes.set(xticks=range(len(LAYERS)), ylim=(BINS[0] - 0.5, 3), ylabel="log₁₀ |gradient|" if not number else "")
        axes.set(yticks=(BINS[0], *range(-8, 3, 2)), yticklabels=("zero", *range(-8, 3, 2)))
        axes.set_xticklabels(LAYERS.values(), rotation=90)
        axes.set_title(name, fontsize=9)
    all_axes[0].legend(fontsize=8)
    return figure


def middle(histogram: Mapping[str, Any], share: float = 0.5) -> float:
    """Quantile of log10 |x|; zeros count as the smallest that is told apart."""
    counts = np.array([histogram["zeros"], *histogram["counts"]], float)
    at = np.searchsorted(np.cumsum(counts), share * counts.sum())
    low, high, bins = BINS
    return low if at == 0 else low + (at - 0.5) * (high - low) / bins


def embedding(model: DeepConvNet, data: tg.data.Dataset, count: int = 2000) -> tuple[Figure, str]:
    """The 50 values of the hidden layer in two dimensions.

    T-SNE where scikit-learn is installed, else principal components.
    """
    x = model.input(data.test_images[:count])
    with tg.no_grad():
        for layer in model.layers[:-4]:  # up to the hidden layer's ReLU
            x = layer(x)
    centred = x.data - x.data.mean(axis=0)
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        flat, method = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T, "principal components"
    else:
        perplexity = min(30, (len(centred) - 1) / 3)
        flat, method = TSNE(random_state=0, init="pca", perplexity=perplexity).fit_transform(centred), "t-SNE"
    figure, (axes,) = panels(1, f"Hidden layer of {len(flat):,} test images ({method})", width=6, height=5)
    for digit in range(10):
        chosen = flat[data.test_labels[:count] == digit]
        if len(chosen):
            axes.scatter(*chosen.T, s=5, color=f"C{digit}", alpha=0.6, lw=0)
            axes.text(
                *np.median(chosen, axis=0),
                digit,
                fontsize=13,
                fontweight="bold",
                ha="center",
                va="center",
                bbox={"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 1},
            )
    axes.set(xlabel=f"{method}, first axis (no unit)", ylabel="second axis (no unit)")
    return figure, method


def graph(folder: Path) -> Path | None:
    """Write the computation graph of the 21 layers as DOT text; draw it, too, where Graphviz is installed."""
    model = DeepConvNet(rng=np.random.default_rng(0))
    images, labels = tg.data.synthetic_digits(2, rng=np.random.default_rng(0))
    text = tg.to_dot(model.loss(images, labels, rng=np.random.default_rng(0)), tg.nn.parameters(model))
    path = folder / "graph.dot"
    write_atomically(path, f"{text}\n".encode())
    if shutil.which("dot") is None:
        return None
    drawn = subprocess.run(
        ["dot", "-Tsvg", str(path), "-o", str(path.with_suffix(".svg"))], capture_output=True, check=False
    )
    return path.with_suffix(".svg") if drawn.returncode == 0 else None


def panels(count: int, title: str, width: float = 10, height: float = 3.8) -> tuple[Figure, Sequence[Axes]]:
    """A figure with axes side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False).ravel())
    for one in axes:
        one.grid(alpha=0.3)
        one.set_axisbelow(True)
    figure.suptitle(title, fontsize=11)
    return figure, axes


def spread_line(
    axes: Axes,
    results: Results,
    variant: str,
    measures: Sequence[str],
    at: Sequence[float],
    color: str,
    marker: str,
    label: str,
    scale: float = 1,
) -> None:
    """Mean over the seeds, with a band from the lowest to the highest."""
    known = [
        (place, ours)
        for place, measure in zip(at, measures, strict=True)
        if (ours := measured(results, variant, measure))
    ]
    if known:
        places = [place for place, _ in known]
        low, high = ([scale * end(ours.values) for _, ours in known] for end in (min, max))
        axes.fill_between(places, low, high, color=color, alpha=0.25, lw=0)
        axes.plot(places, [scale * ours.mean for _, ours in known], color=color, marker=marker, ms=5, label=label)
