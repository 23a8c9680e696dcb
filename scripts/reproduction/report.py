"""The report: what the paper says beside what the stored results say, as Markdown, and as one HTML file."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist.storage.checkpoint import CheckpointError, load_weights
from tinygrad_mnist.storage.files import write_atomically

from . import pictures, verdicts
from .experiments import (
    CANDIDATES,
    EXPERIMENTS,
    NOTHING,
    QUICK_SAYS,
    TARGETS,
    Claim,
    Experiment,
    candidate_variant,
    configuration,
)
from .listed import ListedSettings
from .verdicts import Result, Results, measured

DRAWN: dict[str, Callable[[Results], Any]] = {
    "learning-rate": pictures.learning_rates,
    "initialisation": pictures.initialisations,
    "epochs": pictures.accuracies,
    "depth": pictures.depths,
    "steps": pictures.steps,
    "explanations": pictures.explanations,
    "recipes": pictures.recipes,
}
GRADIENTS = {  # whose weights and gradients are drawn: experiment and variant
    "the paper's network": ("epochs", "paper"),
    "Xavier": ("initialisation", "Xavier"),
    "pixels from 0 to 255": (
        "explanations",
        candidate_variant("pixels from 0 to 255", "6 convolutions: mean loss of epoch 1"),
    ),
    "learning rate 5e-2, fan-in 1024": (
        "explanations",
        candidate_variant("fan-in 1024 in the first affine layer", "learning rate 5e-2: final accuracy"),
    ),
}
NOISE_SAYS = (
    "Each figure is the mean over the seeds, ± their standard deviation. *Noise* is how far one more run is expected "
    "to be from that mean (nine times in ten: Student's t with the seeds' spread; at least 1.645 standard errors of "
    "a single run, the binomial one of an accuracy on so many images). A run that fails (numbers that are no longer "
    "finite) has no image right at its end."
)
VERDICTS_SAY = (
    "A figure of the paper, a single run, is **within noise** if it is no further away than that, else **not "
    "reproduced**. A claim is **reproduced** if it holds by more than the noise of the mean, **not reproduced** if it "
    "fails by more, and **within noise** if these seeds cannot tell; variants are compared seed by seed. With so many "
    "figures, about one in ten misses by chance."
)
BATCH_SAYS = (
    "One of them can be excluded without a computer: if 500 images share one softmax, their 500 probabilities sum to "
    "at most 1, so the mean of -ln p is at least ln 500 = 6.21 whatever the weights are. The paper's losses between "
    "0.8 and 2 were not computed that way."
)
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 "
    "1rem;color:#222}img{max-width:100%;height:auto}table{border-collapse:collapse;margin:1rem "
    "0;font-size:.9rem;display:block;overflow-x:auto}th,td{padding:.25rem .6rem;border-bottom:1px solid "
    "#ccc;text-align:left}blockquote{border-left:4px solid #D55E00;margin:1rem 0;padding:.2rem "
    "1rem;background:#fff4ec}code,pre{font-size:.85rem;background:#f4f4f4}pre{padding:.8rem;overflow:auto;max-height:24rem}"
)


def write_report(
    out: Path, results: Iterable[Result], data: tg.data.Dataset, epochs: int | None, quick: bool
) -> list[Path]:
    """Write report.md, report.html and the pictures; returns the paths of the two. A quick look gets no verdicts."""
    found = list(results)
    if not found:
        raise ValueError(f"{out} holds no results; run the experiments first (leave out --report-only)")
    folder = out / "pictures"
    folder.mkdir(exist_ok=True)
    by_experiment = {
        name: results_by_variant(experiment, found, epochs, quick) for name, experiment in EXPERIMENTS.items()
    }
    mistakes = {candidate_variant(candidate, target) for candidate in CANDIDATES for target in TARGETS}
    if not mistakes & by_experiment["explanations"].keys():
        by_experiment["explanations"] = {}  # what they are compared with belongs to other experiments, too
    by_experiment = {name: by_variant for name, by_variant in by_experiment.items() if by_variant}
    draw = partial(save_picture, folder)
    parts = [*head(used(by_experiment), epochs, quick), *main_table(by_experiment, judged=not quick)]
    for name, by_variant in by_experiment.items():
        parts += section(EXPERIMENTS[name], by_variant, draw, judged=not quick)
    parts += look_inside(by_experiment, out, data, draw)
    parts += runs(by_experiment)
    text = "\n\n".join(parts) + "\n"
    write_atomically(out / "report.md", text.encode())
    write_atomically(out / "report.html", as_html(text, out).encode())
    return [out / "report.md", out / "report.html"]


def results_by_variant(
    experiment: Experiment, found: Iterable[Result], epochs: int | None, quick: bool
) -> dict[str, list[Result]]:
    """Results of an experiment by variant, in the order of the seeds."""
    by_config = {identity(result["config"]): result for result in found}
    seeds = sorted({result["config"]["seed"] for result in by_config.values()})
    by_variant: dict[str, list[Result]] = {}
    for (variant, _), config in experiment.configurations(seeds, epochs, quick).items():
        if (result := by_config.get(identity(config))) is not None:
            by_variant.setdefault(variant, []).append(result)
    return by_variant


def identity(config: Mapping[str, Any]) -> str:
    """Settings as text, to compare them; one that older code did not have was what it is by default."""
    return json.dumps({**config, **asdict(ListedSettings.from_config(config))}, sort_keys=True)


def save_picture(folder: Path, name: str, figure: Any, alt: str) -> list[str]:
    """Save a picture, if there is one, and say in Markdown how to show it."""
    if figure is None:
        return []
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    write_atomically(folder / f"{name}.png", buffer.getbuffer())
    return [f"![{alt}]({folder.name}/{name}.png)"]


# Text -----------------------------------------------------------------------------------------------------------------
def used(by_experiment: Mapping[str, Results]) -> list[Result]:
    """List every run that is in the report, once."""
    runs = (result for by_variant in by_experiment.values() for found in by_variant.values() for result in found)
    return list({result["key"]: result for result in runs}.values())


def head(found: list[Result], epochs: int | None, quick: bool) -> list[str]:
    """Say what this is, of which data and code."""
    parts = ["# The paper, reproduced"]
    if epochs is not None:
        parts.append(
            f"> **At most {epochs} epochs in each run: accuracies at the end are those of shorter runs than the "
            "paper's.**"
        )
    if quick:
        parts.append(f"> **{QUICK_SAYS}**")
    if any(result["synthetic"] for result in found):
        parts.append("> **SYNTHETIC DIGITS, not MNIST: no figure here says anything about the paper's.**")
    about = {
        key: sorted({str(result[key] if key in result else result["begun with"][key]) for result in found})
        for key in ("data", "code", "threads", "numpy", "python", "native kernels")
    }
    seeds = sorted({result["config"]["seed"] for result in found})
    parts.append(
        "Experiments of *A 21-layer deep convolutional neural network in Python* (December 2022), each beside what "
        "this project measures. The paper's protocol holds unless a section says otherwise: all 60,000 training "
        "images, batches of 500, AdaGrad with the learning rate 0.01, 8 epochs, half of the hidden units **and of "
        "the logits** dropped in training, the weights of the last epoch. It looks at test images before every "
        "epoch, and it picked its settings by them; sections made in this way are labelled so: [paper protocol]."
    )
    parts.append(
        f"{len(found)} runs on {', '.join(about['data'])}; seeds {', '.join(map(str, seeds))}; code "
        f"{', '.join(about['code'])}; Python {', '.join(about['python'])}, NumPy {', '.join(about['numpy'])}, native "
        f"kernels: {', '.join(about['native kernels'])}; {', '.join(about['threads'])} thread(s) in each run."
    )
    parts.append(NOISE_SAYS if quick else f"{NOISE_SAYS} {VERDICTS_SAY}")
    return parts


def main_table(by_experiment: Mapping[str, Results], judged: bool) -> list[str]:
    """Every claim, in one table, with its verdict where they are `judged`."""
    rows = []
    missing = [experiment.title for name, experiment in EXPERIMENTS.items() if name not in by_experiment]
    for name, by_variant in by_experiment.items():
        experiment = EXPERIMENTS[name]
        for number, claim in enumerate(experiment.claims):
            verdict = [f"**{verdicts.claim_verdict(claim, by_variant)}**"] if judged else []
            first = f"[{experiment.title}](#{name})" if number == 0 else ""
            rows.append((first, words(claim), claim_numbers(claim, by_variant), *verdict))
    return [
        "## What the paper says, and what we measured",
        table(("experiment", "claim", "measured", *["verdict"] * judged), rows),
        *([f"Not run: {'; '.join(missing)}."] if missing else []),
    ]


def words(claim: Claim) -> str:
    """Text of a claim, with whose it is."""
    return f"our aim: {claim.text}" if claim.ours else claim.text


def section(experiment: Experiment, results: Results, draw: Callable[..., list[str]], judged: bool) -> list[str]:
    """One experiment: the paper's words, the picture, figures side by side; the verdict, where it is `judged`."""
    protocol = any(run["config"]["paper_protocol"] for runs in results.values() for run in runs)
    title = f"{experiment.title} {'[paper protocol] ' * protocol}"
    parts = [
        f'## {title}<a id="{experiment.name}"></a>',
        f"**The {'paper' if experiment.claims else 'question'}:** {experiment.paper}",
    ]
    if experiment.claims and judged:
        each = "; ".join(f"{words(claim)}: **{verdicts.claim_verdict(claim, results)}**" for claim in experiment.claims)
        parts.append(f"**Verdict: {verdicts.experiment_verdict(experiment, results)}.** {each[0].upper()}{each[1:]}.")
    parts += draw(experiment.name, DRAWN[experiment.name](results), experiment.title)
    if experiment.figures:
        rows: list[tuple[str, ...]] = []
        found = []
        for figure in experiment.figures:
            ours = measured(results, figure.variant, figure.measure)
            found.append(verdicts.figure_verdict(figure, results))
            name = label(figure.variant, figure.measure)
            verdict = found[-1:] if judged else []
            rows.append((name, shown(figure.paper, figure.measure), *numbers(ours, figure.measure), *verdict))
        if judged:
            near = found.count(verdicts.WITHIN_NOISE)
            parts.append(f"Figures of the paper that are within noise of ours: {near} of {len(found)}.")
        parts.append(table(("figure", "paper", "ours", "noise", "each seed", *["verdict"] * judged), rows))
    elif experiment.claims:
        measures = {
            (v, measure): None
            for claim in experiment.claims
            for v in (claim.variant, *claim.than)
            for measure in claim.measures
        }
        rows = [(label(v, m), *numbers(measured(results, v, m), m)) for v, m in measures]
        parts.append(table(("figure", "ours", "noise", "each seed"), rows))
    if experiment.name == "explanations":
        parts += explanations(results, judged)
    if experiment.name == "recipes":
        parts += recipes(results)
    return parts


def explanations(results: Results, judged: bool) -> list[str]:
    """Each candidate against each target."""
    parts = [f"**Conclusion:** {verdicts.conclusion(results)}"] * judged + [BATCH_SAYS]
    for target, (_, _, measure, paper) in TARGETS.items():
        rows = []
        for candidate in [NOTHING, *CANDIDATES]:
            found = verdicts.explained(candidate, target, results)
            if found.verdict == verdicts.NOT_MEASURED:
                continue
            gap = "" if candidate == NOTHING or math.isnan(found.closed) else f"{round(100 * found.closed)} %"
            verdict = ["" if candidate == NOTHING else found.verdict] if judged else []
            rows.append((candidate, *numbers(found.ours, measure), gap, *verdict))
        if len(rows) > 1:
            columns = ("put back", "ours", "noise", "each seed", "of the gap closed", *["verdict"] * judged)
            parts += [f"{target}: the paper has {shown(paper, measure)}.", table(columns, rows)]
    return parts


def recipes(results: Results) -> list[str]:
    """Accuracy and time of the two recipes."""
    rows = []
    for name, runs in results.items():
        whole = [run for run in runs if not run["failed"]]
        if not whole:
            rows.append((name, *["–"] * 4, setting_words(runs[0]["config"])))
            continue
        took = f"{np.mean([run['seconds'][-1] for run in whole]):.0f} s"
        counted = numbers(measured(results, name, "test_accuracy"), "test_accuracy")
        rows.append((name, *counted, took, setting_words(runs[0]["config"])))
    return [
        "Where `validation` says so, a run holds out that many training images (its seed decides which), and they "
        "choose the epoch whose weights are used; else the last weights are. The best recipe was chosen by images "
        "held out, and then trains on all. The test images draw the curve, and nothing is chosen by them. Times are "
        "those of runs side by side, measuring included.",
        table(("recipe", "test accuracy", "noise", "each seed", "time", "settings"), rows),
    ]


def look_inside(
    by_experiment: Mapping[str, Results], out: Path, data: tg.data.Dataset, draw: Callable[..., list[str]]
) -> list[str]:
    """Pictures of a trained network, and of its gradients."""
    first = [
        run for e, v in (("recipes", "best recipe"), ("epochs", "paper")) for run in by_experiment.get(e, {}).get(v, ())
    ]
    chosen, model = next(
        ((run, model) for run in [*first, *used(by_experiment)] if (model := loaded(run, out)) is not None),
        (None, None),
    )
    parts = []
    if chosen is None or model is None:
        parts += [
            "## A look inside",
            "(No weights are stored beside the results; with those of a run, its network would be shown here.)",
        ]
    else:
        which = (
            f"run `{chosen['key']}`: {setting_words(chosen['config'])}; test accuracy "
            f"{shown(chosen['test_accuracy'], 'test_accuracy')}"
        )
        parts += ["## A look inside", f"A trained network ({which})."]
        parts += draw("confusion", pictures.confusion(chosen), "Test images by true and guessed digit")
        parts += draw("mistakes", pictures.mistakes(chosen, data), "Test images that are most confidently wrong")
        parts += draw("filters", pictures.filters(model), "Filters of the first convolution")
        parts += draw(
            "feature_maps", pictures.feature_maps(model, data.test_images[0]), "Feature maps of one digit in each layer"
        )
        figure, method = pictures.embedding(model, data)
        parts += draw("embedding", figure, f"Hidden layer in two dimensions, by {method}")
        if method != "t-SNE":
            parts.append("(With scikit-learn, `pip install 'tinygrad_mnist[report]'`, t-SNE would be drawn.)")
    runs = {name: by_experiment[e][v][0] for name, (e, v) in GRADIENTS.items() if v in by_experiment.get(e, {})}
    if runs:
        parts.append("## Weights and gradients, layer by layer")
        parts.append("On the same 500 training images each time, before training and after each epoch.")
        for name, run in runs.items():
            file = "histograms_" + re.sub(r"\W+", "_", name)
            parts += draw(
                file,
                pictures.histograms(run, f"Weights and gradients of each layer: {name}"),
                f"Histograms by layer: {name}",
            )
        parts += draw("gradients", pictures.gradients(runs), "Gradients by layer")
    drawn = pictures.graph(out / "pictures")
    parts += [
        "## The computation graph",
        "How the loss of the 21 layers is computed, op by op (two images; parameters in blue): `pictures/graph.dot`, "
        "in Graphviz's language.",
    ]
    parts.append(
        "![Computation graph](pictures/graph.svg)"
        if drawn
        else "(Where Graphviz is installed, the graph is drawn here.)"
    )
    return parts


def loaded(result: Result, out: Path) -> DeepConvNet | None:
    """Rebuild the network of a run from its stored weights; None if they are gone, or it has failed."""
    if result["failed"]:
        return None
    model = ListedSettings.from_config(result["config"]).network()
    try:
        tg.nn.load_state_dict(model, load_weights(out / "results" / f"{result['key']}.safetensors", like=model))
    except (OSError, CheckpointError):
        return None
    return model


def runs(by_experiment: Mapping[str, Results]) -> list[str]:
    """List every run, with the file that every number above was computed from."""
    rows = [
        (
            f"`{r['key']}`",
            setting_words(r["config"]),
            str(r["config"]["seed"]),
            "failed" if r["failed"] else shown(r["test_accuracy"], "test_accuracy"),
            f"{r['seconds'][-1]:.0f} s" if r["seconds"] else "",
        )
        for r in used(by_experiment)
    ]
    failed = [f"- `{r['key']}` failed: {r['failed']}" for r in used(by_experiment) if r["failed"]]
    return [
        "## Runs",
        "Every number above is computed from `results/KEY.json`: losses of every step, accuracies of every epoch, "
        "the confusion matrix, the mistakes, histograms, settings. `results/KEY.safetensors` has the weights of a "
        "run that did not fail.",
        table(("key", "settings", "seed", "test accuracy", "time"), rows),
        *(["\n".join(failed)] if failed else []),
    ]


def claim_numbers(claim: Claim, results: Results) -> str:
    """What was measured about a claim, in a few words."""
    texts = []
    for measure in claim.measures:
        ours = measured(results, claim.variant, measure)
        known = {
            name: margin for name, margin in verdicts.margins(claim, measure, results).items() if margin is not None
        }
        if ours is None or not known:
            texts.append("–")
            continue
        unit, digits = (100, 2) if "accuracy" in measure else (1, 3)
        name, (margin, error) = min(known.items(), key=lambda item: item[1])
        sign, text, noise = (
            (" %" if unit == 100 else ""),
            f"{unit * ours.mean:.{digits}f}",
            f" ± {unit * error:.{digits}f}",
        )
        if name and (theirs := measured(results, name, measure)) is not None:
            named = f" ({name})" if len(claim.than) > 1 else ""
            text += (
                f"{sign} against {shown(theirs.mean, measure)}{named}, difference "
                f"{claim.sign * unit * margin:+.{digits}f}"
            )
        texts.append(f"{text}{noise}{sign}")
    return "; ".join(texts)


def setting_words(config: Mapping[str, Any]) -> str:
    """How settings differ from the paper's."""
    usual = configuration({}, config["seed"])
    changed = [f"{name.replace('_', ' ')} {value}" for name, value in config.items() if usual[name] != value]
    return ", ".join(changed) or "the paper's"


def label(variant: str, measure: str) -> str:
    """Name a figure for people."""
    kind, _, at = measure.partition("@")
    kinds = {
        "test_accuracy": "test accuracy",
        "train_accuracy": "training accuracy",
        "mean_loss": "mean loss",
        "fall": "loss of the last tenth of epoch 1, by that of its first step",
        "drop": "mean loss, by that of epoch 1",
    }
    when = "" if not at else f", epoch {at}" if "accuracy" not in kind else f", start of epoch {at}"
    return f"{kinds[kind]}{when}" if variant == "paper" else f"{variant}: {kinds[kind]}{when}"


def numbers(ours: verdicts.Measured | None, measure: str) -> tuple[str, str, str]:
    """Mean and deviation, noise, each seed."""
    if ours is None:
        return "–", "–", "–"
    unit = 100 if "accuracy" in measure else 1
    digits = 2 if unit == 100 else 3
    spread = f" ± {unit * ours.deviation:.{digits}f}" if len(ours.values) > 1 else ""
    each = ", ".join(f"{unit * value:.{digits}f}" for value in ours.values) + (
        f"; {ours.failed} failed" if ours.failed else ""
    )
    return (
        f"{unit * ours.mean:.{digits}f}{spread}{' %' if unit == 100 else ''}",
        f"± {unit * ours.noise:.{digits}f}",
        each,
    )


def shown(value: float, measure: str) -> str:
    """A number with its unit."""
    return f"{100 * value:.2f} %" if "accuracy" in measure else f"{value:.3f}"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown of a table."""
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_html(text: str, out: Path) -> str:
    """Render the Markdown into one file that needs no other."""
    import markdown

    def inside(match: re.Match[str]) -> str:
        path = out / html.unescape(match[1])
        kind = "svg+xml" if path.suffix == ".svg" else "png"
        return f'src="data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"'

    body = re.sub(r'src="([^":]+)"', inside, markdown.markdown(text, extensions=["tables"]))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width">'
        f"<title>The paper, reproduced</title><style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )
