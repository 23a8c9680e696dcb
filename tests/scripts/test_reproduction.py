"""The paper's experiments: the table is the paper's, runs are stored once and survive, the report is whole."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reproduce_paper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reproduction import experiments, report, running, verdicts
from reproduction.experiments import CANDIDATES, EXPERIMENTS, TARGETS, candidate_variant, configuration
from reproduction.listed import ListedSettings
from reproduction.verdicts import NOT_MEASURED
from training import build
from training.settings import RECIPES

import tinygrad_mnist as tg
from tinygrad_mnist.storage.checkpoint import load_weights

COMMAND = [sys.executable, reproduce_paper.__file__]


# The table ------------------------------------------------------------------------------------------------------------
def test_the_figures_are_the_papers() -> None:
    figures = {name: {(f.variant, f.measure): f.paper for f in e.figures} for name, e in EXPERIMENTS.items()}
    assert figures["learning-rate"] == {
        (rate, "test_accuracy"): value
        for rate, value in {
            "5e-2": 0.4955,
            "3e-2": 0.9786,
            "1e-2": 0.9930,
            "3e-3": 0.9838,
            "3e-5": 0.6507,
            "3e-7": 0.1795,
        }.items()
    }
    train, test, final = [], [], figures["epochs"]["paper", "test_accuracy"]
    for kind, values in (("train", train), ("test", test)):
        values += [figures["epochs"]["paper", f"{kind}_accuracy@{e}"] for e in range(1, 9)]
    assert train == [0.154, 0.977, 0.989, 0.990, 0.993, 0.994, 0.995, 0.991]
    assert test == [0.132, 0.976, 0.982, 0.984, 0.989, 0.986, 0.989, 0.990] and final == 0.9937
    assert list(figures["depth"].values()) == [1.235, 1.053, 0.975, 1.436, 1.225, 1.124, 1.726, 1.465, 1.326]


def test_every_figure_claim_and_target_is_about_a_variant_that_is_run_long_enough() -> None:
    for experiment in EXPERIMENTS.values():
        configs = experiment.configurations(range(2), None, False)
        assert len(configs) == 2 * len(experiment.variants)
        wanted = [(f.variant, f.measure) for f in experiment.figures]
        wanted += [(v, m) for claim in experiment.claims for v in (claim.variant, *claim.than) for m in claim.measures]
        for variant, measure in wanted:
            assert int(measure.partition("@")[2] or 0) <= configs[variant, 1]["epochs"]
        assert report.DRAWN.keys() == EXPERIMENTS.keys()
    for target, (_, epochs, measure, _) in TARGETS.items():
        for candidate in CANDIDATES:
            config = configuration(EXPERIMENTS["explanations"].variants[candidate_variant(candidate, target)], 0)
            assert int(measure.partition("@")[2] or 0) <= epochs == config["epochs"]
            assert config.items() >= CANDIDATES[candidate].items()
    assert {variant for e, variant in report.GRADIENTS.values() if e == "explanations"} <= EXPERIMENTS[
        "explanations"
    ].variants.keys()
    with pytest.raises(TypeError):
        EXPERIMENTS["mine"] = None


def test_runs_that_several_experiments_look_at_are_made_once() -> None:
    data = tg.data.Dataset(*(np.zeros((20, 28, 28), np.uint8), np.zeros(20, np.uint8)) * 2, "nothing", True)
    configs = [config for e in EXPERIMENTS.values() for config in e.configurations(range(3), None, False).values()]
    jobs = running.wanted(configs, data, "")
    assert (
        len(jobs) == 3 * (6 + 1 + 2 + 7 * 6 + 2) < len(configs)
    )  # rates, Xavier, depths, candidates by targets, recipes
    assert configuration({"lr": 0.01}, 0) == configuration({}, 0)
    paper = asdict(ListedSettings(paper_protocol=True, seed=0))
    assert paper == {"recipe": "paper", **configuration({}, 0)}
    assert (
        configuration({"recipe": "best"}, 1, quick=True).items()
        >= {"epochs": 8, "limit": 8000, "optimizer": "muon"}.items()
    )
    most = RECIPES["best"]["epochs"]
    assert [configuration({"recipe": "best"}, 0, epochs)["epochs"] for epochs in (None, 2, 99)] == [most, 2, most]
    assert [configuration({"epochs": 3}, 0, epochs, quick=True)["epochs"] for epochs in (None, 2, 99)] == [3, 2, 3]


@given(st.data())
def test_a_key_depends_on_every_setting_on_data_and_code_and_on_nothing_else(data: Any) -> None:
    config = configuration({}, 0)
    shuffled = dict(data.draw(st.permutations(list(config.items()))))
    key = running.key(config, "data", "code")
    assert running.key(shuffled, "data", "code") == key and re.fullmatch("[0-9a-f]{16}", key)
    name = data.draw(st.sampled_from(list(config)))
    assert running.key({**config, name: "another"}, "data", "code") != key
    assert running.key(config, "other data", "code") != key != running.key(config, "data", "other code")


def test_a_result_of_version_0_1_0_is_recognised() -> None:
    config = configuration({"lr": 0.03}, 0)
    assert report.identity({**config, "momentum": 0.9, "weight_decay": 0.01}) == report.identity(config)
    assert report.identity({**config, "lr": 0.01}) != report.identity(config) != report.identity({**config, "new": 1})
    with_momentum = configuration({"optimizer": "sgd", "momentum": 0.5}, 0)
    assert report.identity(with_momentum) != report.identity({**with_momentum, "momentum": 0.9})


# Running --------------------------------------------------------------------------------------------------------------
class Flag:
    """What running needs of multiprocessing's Value and Event, within one process."""

    def __init__(self) -> None:
        self.value, self.lock, self.event = 0.0, threading.Lock(), threading.Event()
        self.is_set, self.set = self.event.is_set, self.event.set

    def get_lock(self) -> threading.Lock:
        return self.lock


class AtOnce(Executor):
    """Does everything when it is submitted: the simplest executor there is."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **keywords))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def small(folder: Path) -> tg.data.Dataset:
    return tg.data.find_mnist(folder)


def jobs_for(small: tg.data.Dataset, *changes: dict[str, Any]) -> dict[str, running.Job]:
    usual = {"epochs": 1, "limit": 200, "batch_size": 100, "depth": 4}
    return running.wanted([configuration({**usual, **change}, 0) for change in changes], small, "sha")


def without_times(path: Path) -> dict[str, Any]:
    return {
        name: value
        for name, value in json.loads(path.read_text()).items()
        if name not in ("seconds", "threads", "sha256")
    }


def test_any_executor_and_any_number_of_threads_give_the_same_results(
    small: tg.data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "MEASURED", 50)
    jobs = jobs_for(
        small,
        {},
        {"init": "xavier"},
        {"dtype": "float64", "loss_eps": 1e-7},
        {"paper_protocol": False, "validation": 50},
    )
    for name, executor, threads in (("a", AtOnce(), 1), ("b", ThreadPoolExecutor(3), 2)):
        (tmp_path / name).mkdir()
        done, finished = Flag(), []
        running.begin(running.Workplace(small, tmp_path / name, threads, done, Flag()))
        with executor:
            running.run_all(
                jobs.values(), executor, stop=Flag(), tick=lambda: None, finished=finished.append, stopped=lambda: False
            )
        assert sorted(job.key for job in finished) == sorted(jobs)
        assert done.value == sum(job.images for job in jobs.values()) - 50, (
            "float64 counts fourfold; 50 images were held out"
        )
    for key in jobs:
        assert without_times(tmp_path / "a" / f"{key}.json") == without_times(tmp_path / "b" / f"{key}.json")
        first, second = (load_weights(tmp_path / name / f"{key}.safetensors") for name in "ab")
        different = {
            name: np.abs(first[name] - second[name]).max()
            for name in first
            if not np.array_equal(first[name], second[name])
        }
        assert not different, jobs[key].config
    (result,) = [r for r in running.stored(tmp_path / "a", pytest.fail).values() if not r["config"]["paper_protocol"]]
    assert result["history"][-1]["test_accuracy"] == result["test_accuracy"], "all test images draw the curve"


def test_a_result_is_what_training_and_testing_give(small: tg.data.Dataset, tmp_path: Path) -> None:
    (job,) = jobs_for(small, {"epochs": 2}).values()
    running.begin(running.Workplace(small, tmp_path, 1, Flag(), Flag()))
    assert running.work(job) == job.key
    result = json.loads((tmp_path / f"{job.key}.json").read_text())
    trainer = running.make_trainer(ListedSettings.from_config(job.config), small)
    assert [step.loss for step in trainer.steps()] == result["losses"]
    assert result["history"][1:] == trainer.history and result["history"][0]["epoch"] == 0
    assert result["last_batch"] == len(trainer.cuts[-1]) / len(trainer.cuts[0])
    assert verdicts.one(result, "mean_loss@1")[0] == pytest.approx(trainer.history[0]["mean_loss"])
    model, labels = trainer.model, small.test_labels.astype(int)
    guessed = model(small.test_images).data.argmax(axis=1)
    assert result["test_accuracy"] == np.mean(guessed == labels)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels, guessed), 1)
    assert result["confusion"] == confusion.tolist()
    assert [row[:3] for row in result["wrong"]] == [
        [i, labels[i], guessed[i]] for i in np.flatnonzero(guessed != labels)
    ]
    sure = tg.softmax(model(small.test_images)).data.max(axis=1)
    assert [row[3] for row in result["wrong"]] == pytest.approx([sure[row[0]] for row in result["wrong"]], abs=1e-5)
    assert (
        len(result["histograms"]) == 3
        and len(result["seconds"]) == 2
        and sorted(result["seconds"]) == result["seconds"]
    )
    for layer, sizes in result["histograms"][-1].items():
        assert sum(sizes["weight"]["counts"]) + sizes["weight"]["zeros"] == tg.nn.parameters(model)[layer].size


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers overflow on purpose
def test_a_run_that_turns_bad_is_a_result_too(small: tg.data.Dataset, tmp_path: Path) -> None:
    (job,) = jobs_for(small, {"lr": 1e30, "epochs": 3}).values()
    running.begin(running.Workplace(small, tmp_path, 1, Flag(), Flag()))
    assert running.work(job) == job.key
    result = running.stored(tmp_path, pytest.fail)[job.key]
    assert (
        "step" in result["failed"]
        and result["test_accuracy"] is None
        and verdicts.one(result, "test_accuracy") == (0, 0)
    )
    assert not list(tmp_path.glob("*.safetensors"))


def test_told_to_stop_it_stores_nothing_more(small: tg.data.Dataset, tmp_path: Path) -> None:
    jobs, stop = jobs_for(small, {}, {"init": "xavier"}), Flag()
    running.begin(running.Workplace(small, tmp_path, 1, Flag(), stop))
    stop.set()
    running.run_all(jobs.values(), AtOnce(), stop=stop, tick=lambda: None, finished=pytest.fail, stopped=lambda: True)
    assert not list(tmp_path.iterdir())


def test_an_error_in_one_job_cancels_the_others_and_is_told(small: tg.data.Dataset, tmp_path: Path) -> None:
    jobs, stop = jobs_for(small, {}, *({"lr": 0.01 + i / 1000} for i in range(1, 20))), Flag()
    running.begin(running.Workplace(small, tmp_path / "missing", 1, Flag(), stop))
    with ThreadPoolExecutor(1) as executor, pytest.raises(OSError, match="missing"):
        running.run_all(
            jobs.values(), executor, stop=stop, tick=lambda: None, finished=pytest.fail, stopped=lambda: False
        )
    assert stop.is_set()


NO_RESULTS = [b"{}", b"[]", b"null", b'{"key": "b"}', b'{"key": "a"}', b'{"key": "a", "sha256": ""}', b"[" * 100_000]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # every example writes its file anew
@given(st.one_of(st.binary(max_size=40), st.sampled_from(NO_RESULTS)))
def test_what_is_no_result_is_told_and_left_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    said: list[str] = []
    assert running.stored(tmp_path, said.append) == {} and len(said) == 1 and "a.json is no result" in said[0]


# The command ----------------------------------------------------------------------------------------------------------
OPTIONS = ["--experiments", "initialisation", "depth", "--epochs", "1", "--seeds", "2", "--jobs", "2"]


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reproduction that nothing happened to."""
    out = tmp_path_factory.mktemp("reproduction") / "out"
    done = subprocess.run(
        [*COMMAND, "--data", folder, "--out", out, *OPTIONS], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (
        "8 runs, 0 of them done" in done.stdout
        and "runs left" in done.stderr
        and f"report: {out / 'report.html'}" in done.stdout
    )
    return out


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take seconds."""
    monkeypatch.setattr(reproduce_paper, "write_report", lambda *arguments: [])


def test_every_run_is_stored_and_none_is_repeated(whole: Path, folder: Path, capsys: Any, no_report: None) -> None:
    before = {path: path.stat().st_mtime_ns for path in (whole / "results").iterdir()}
    assert len(before) == 16
    assert reproduce_paper.main(["--resume", str(whole), "--data", str(folder)]) == 0
    assert "8 runs, 8 of them done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (whole / "results").iterdir()} == before


def test_the_reports_numbers_are_those_of_the_stored_results(whole: Path) -> None:
    text, results = (whole / "report.md").read_text(), running.stored(whole / "results", pytest.fail).values()
    for depth, name in experiments.DEPTH_NAMES.items():
        values = [
            np.average(r["losses"], weights=[1.0] * (len(r["losses"]) - 1) + [r["last_batch"]])
            for r in results
            if r["config"].items() >= {"depth": depth, "init": "he"}.items()
        ]
        assert len(values) == 2
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {name}: mean loss, epoch 1 |")]
        assert f"| {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f} |" in row
        assert ", ".join(f"{v:.3f}" for v in values) in row or ", ".join(f"{v:.3f}" for v in values[::-1]) in row
    assert text.count("not measured") >= 2, "the last epoch of eight was not run"
    for result in results:
        assert f"| `{result['key']}` |" in text and f"{100 * result['test_accuracy']:.2f} %" in text


def test_the_html_holds_everything_and_the_markdown_names_it(whole: Path) -> None:
    page, text = (whole / "report.html").read_text(), (whole / "report.md").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    pictures = [source for source in sources if source.startswith("data:image/")]
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) == len(shown) >= 10 and all((whole / path).stat().st_size > 1000 for path in shown)
    assert {anchor[1:] for anchor in sources if anchor.startswith("#")} <= set(re.findall(r'id="([^"]+)"', page))
    assert (whole / "pictures" / "graph.dot").read_text().startswith("digraph {")
    assert "DATA OF THE SHAPE OF MNIST" in text, "it says which data it is about"
    for name in ("initialisation", "depth"):
        assert f'<a id="{name}">' in page and EXPERIMENTS[name].paper.replace("'", "&#39;")[:40] in page.replace(
            "'", "&#39;"
        )


def result_files(out: Path) -> dict[str, Any]:
    return {path.stem: without_times(path) for path in (out / "results").glob("*.json")}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in /proc")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)], ids=lambda number: number.name
)
def test_stopped_at_any_time_it_keeps_what_is_done_and_goes_on(
    whole: Path, folder: Path, tmp_path: Path, no_report: None, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*COMMAND, "--data", folder, "--out", out, *OPTIONS], **pipes, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list(out.glob("results/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)  # a terminal sends Ctrl-C to all of them
    _, said = process.communicate(timeout=300)
    deadline = time.monotonic() + 60
    kept = {path: path.stat().st_mtime_ns for path in out.glob("results/*.json")}
    assert kept and process.returncode == (-number if number == signal.SIGKILL else 128 + number), said
    if number == signal.SIGINT:  # killed, it cannot keep a process that was just starting from saying so
        assert "Traceback" not in said and f"go on with --resume {out}" in said
    while any(os.path.exists(f"/proc/{pid}") and alive(pid) for pid in children):
        assert time.monotonic() < deadline, "a process that trains has outlived the command"
        time.sleep(0.05)
    assert reproduce_paper.main(["--resume", str(out), "--data", str(folder), "--quiet"]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert result_files(out) == result_files(whole)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("cut", [True, False], ids=["cut off", "a digit changed"])
def test_a_damaged_result_is_computed_again(
    whole: Path, folder: Path, tmp_path: Path, capsys: Any, no_report: None, cut: bool
) -> None:
    out = tmp_path / "out"
    (out / "results").mkdir(parents=True)
    for path in (whole / "options.json", *(whole / "results").iterdir()):
        (out / path.relative_to(whole)).write_bytes(path.read_bytes())
    damaged = next((out / "results").glob("*.json"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-20] if cut else content.replace(b'"losses": [2', b'"losses": [3'))
    (out / "results" / "x.json.0123456789ab.part").write_bytes(b"left by a process that was killed")
    assert reproduce_paper.main(["--resume", str(out), "--data", str(folder), "--quiet", "--jobs", "1"]) == 0
    shown = capsys.readouterr()
    assert (
        "8 runs, 7 of them done" in shown.out
        and "is no result" in shown.err
        and not list((out / "results").glob("*.part"))
    )
    assert result_files(out) == result_files(whole)


def test_results_of_other_code_are_left_out_unless_asked_for(
    whole: Path, folder: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(running, "code", lambda: "another")
    monkeypatch.setattr(reproduce_paper, "run_missing", lambda *arguments: None)
    monkeypatch.setattr(reproduce_paper, "write_report", lambda out, results, *rest: [f"{len(list(results))} results"])
    options = ["--resume", str(whole), "--data", str(folder)]
    assert reproduce_paper.main(options) == 0
    shown = capsys.readouterr()
    assert "8 runs, 0 of them done" in shown.out and "8 results are of other code or data" in shown.err
    assert reproduce_paper.main([*options, "--report-only"]) == 0
    assert "report: 8 results" in capsys.readouterr().out
    assert reproduce_paper.main(["--resume", str(whole), "--data", "synthetic", "--report-only"]) == 0
    assert "report: 0 results" in capsys.readouterr().out, "other data are never taken"


@pytest.mark.parametrize(
    "options, words",
    [
        (["--experiments", "mine"], "choose from"),
        (["--seeds", "0"], "at least 1"),
        (["--seeds", "1000000000000"], "at most 1000"),
        (["--jobs", "x"], "whole number"),
        (["--quick", "--seeds", "2"], "a quick look has one seed"),
        (["--report-only"], "name the folder"),
        (["--data", "no/such/folder"], "not a folder"),
        (["--resume", "no/such/folder"], "holds no reproduction"),
        (["--resume", ".", "--out", "x"], "leave out --out"),
        (["--out", ".", "--experiments", "depth"], "not empty"),
        (["--experiments", "recipes"], "5000 of 600 images are to be held out"),
    ],
)
def test_bad_arguments_end_in_one_line(
    folder: Path, tmp_path: Path, capsys: Any, monkeypatch: Any, options: list[str], words: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    try:
        code = reproduce_paper.main(["--data", str(folder), *options])
    except SystemExit as stop:  # argparse's own way
        code = stop.code
    said = capsys.readouterr().err
    assert code == 2 and words in said and said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"experiments": ["mine"], "seeds": 1, "epochs": null, "quick": false, "data": null}',
        '{"experiments": ["depth"], "seeds": 0, "epochs": null, "quick": false, "data": null}',
        '{"experiments": ["depth"], "seeds": 1, "epochs": null, "quick": false, "data": 3}',
    ],
)
def test_options_that_something_else_has_written_end_in_one_line(
    folder: Path, tmp_path: Path, capsys: Any, content: str
) -> None:
    (tmp_path / "options.json").write_text(content)
    assert reproduce_paper.main(["--resume", str(tmp_path), "--data", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "options.json cannot be read" in said and said.count("\n") == 1


def test_two_in_one_folder_are_refused(whole: Path, folder: Path, capsys: Any) -> None:
    from filelock import FileLock

    with FileLock(whole / ".lock"):
        assert reproduce_paper.main(["--resume", str(whole), "--data", str(folder)]) == 2
    assert "another process is working in" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["matplotlib", "markdown", "filelock", "tqdm", "safetensors"])
def test_a_missing_extra_is_named_first(
    folder: Path, tmp_path: Path, capsys: Any, monkeypatch: Any, module: str
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else found(name))
    assert reproduce_paper.main(["--data", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert (
        f"needs {module}: pip install 'tinygrad_mnist[train]'" in capsys.readouterr().err
        and not (tmp_path / "out").exists()
    )


def test_quick_and_synthetic_reports_say_so_first(small: tg.data.Dataset, tmp_path: Path) -> None:
    assert experiments.QUICK_SAYS in report.head([], None, quick=True)[1]
    result = {
        "data": "x",
        "code": "x",
        "threads": 1,
        "synthetic": True,
        "config": {"seed": 0},
        "begun with": {"numpy": "x", "python": "x", "native kernels": "x"},
    }
    assert "SYNTHETIC DIGITS" in report.head([result], None, quick=False)[1]
    assert "At most 3 epochs" in report.head([result], 3, quick=False)[1]


def test_options_are_kept_by_a_report_and_grow_by_what_is_asked_for(
    whole: Path, folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(reproduce_paper, "run_missing", lambda *arguments: None)
    monkeypatch.setattr(reproduce_paper, "write_report", lambda *arguments: [])
    path, options = tmp_path / "options.json", ["--resume", str(tmp_path), "--data", str(folder)]
    path.write_bytes((whole / "options.json").read_bytes())
    before = path.read_bytes()
    assert reproduce_paper.main([*options, "--experiments", "epochs", "--report-only"]) == 0
    assert path.read_bytes() == before
    assert reproduce_paper.main([*options, "--experiments", "epochs", "--seeds", "1"]) == 0
    kept = json.loads(path.read_text())
    assert (kept["experiments"], kept["seeds"]) == (["initialisation", "epochs", "depth"], 2)


def test_begun_with_other_epochs_is_refused(whole: Path, folder: Path, capsys: Any) -> None:
    assert reproduce_paper.main(["--resume", str(whole), "--data", str(folder), "--epochs", "2"]) == 2
    assert "was begun with other --quick or --epochs" in capsys.readouterr().err


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without those that need weights or Graphviz."""
    monkeypatch.setattr(report.pictures, "graph", lambda folder: None)


def made(config: dict[str, Any], number: int, fails: str = "none") -> dict[str, Any]:
    """A result with random numbers."""
    draws = np.random.default_rng(number)
    bad = fails == "at once" or (fails == "some" and number % 3 == 0)
    losses = draws.uniform(0.8, 2, 0 if fails == "at once" else 4 if bad else 4 * config["epochs"]).tolist()
    epochs = len(losses) // 4
    accuracies = ["train_accuracy", "validation_accuracy", "validation_loss"]
    accuracies += ["test_accuracy"] if config["paper_protocol"] or "warmup" in config else []
    histogram = {"counts": [1] * running.BINS[2], "zeros": 0, "not finite": 0}
    layers = {name: {"weight": histogram, "gradient": histogram} for name in report.pictures.LAYERS}
    return {
        "key": f"{number:016x}",
        "config": config,
        "code": "c",
        "data": "MNIST",
        "synthetic": False,
        "threads": 1,
        "losses": losses,
        "begun with": {"numpy": "2", "python": "3", "native kernels": "none"},
        "failed": "step 5: the loss is nan" if bad else "",
        "steps_per_epoch": 4,
        "history": [{"epoch": e, **dict.fromkeys(accuracies, draws.uniform(0.9, 1))} for e in range(epochs + 1)],
        "measured_images": 1000,
        "seconds": [float(e) for e in range(1, epochs + 1)],
        "test_images": 200,
        "histograms": [layers] * (epochs + 1),
        "test_accuracy": None if bad else draws.uniform(0.9, 1),
        "wrong": [[3, 1, 2, 0.9]],
        "confusion": np.eye(10, dtype=int).tolist(),
    }


@pytest.mark.parametrize(
    "fails, seeds",
    [
        pytest.param("none", (0, 2), marks=pytest.mark.slow),
        pytest.param("some", (0, 2), marks=pytest.mark.slow),
        ("at once", (0,)),
    ],  # pictures take their time
    ids=str,
)
def test_whatever_is_there_the_report_tells_it(
    small: tg.data.Dataset, tmp_path: Path, few_pictures: None, fails: str, seeds: tuple[int, ...]
) -> None:
    configs = [
        c
        for e in EXPERIMENTS.values()
        for (_, seed), c in e.configurations(range(3), None, False).items()
        if seed in seeds
    ]
    for config in configs:  # some are of code that had no such settings, and did not measure so
        if config["seed"] == 2 and config["optimizer"] == "adagrad":
            del config["warmup"], config["weight_decay"]
    different = {report.identity(c): c for c in configs}.values()
    results = [made(config, number, fails) for number, config in enumerate(different)]
    report.write_report(tmp_path, results, small, None, False)
    text, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    assert f"{len(results)} runs on MNIST; seeds {', '.join(map(str, seeds))}" in text and "Not run" not in text
    assert "No weights are stored" in text and "nan" not in re.sub("step 5: the loss is nan", "", text)
    assert text.count("- `") == sum(bool(result["failed"]) for result in results)
    for experiment in EXPERIMENTS.values():
        assert f'<a id="{experiment.name}">' in page
    some = report.write_report(tmp_path, results[:1], small, None, False)[0].read_text()
    assert "Not run: " in some and "1 runs on MNIST" in some
    with pytest.raises(ValueError, match="holds no results"):
        report.write_report(tmp_path, [], small, None, False)


VERDICTS = (
    *(f"**{word}" for word in (verdicts.REPRODUCED, verdicts.NOT_REPRODUCED, verdicts.WITHIN_NOISE)),
    *("| verdict", "Verdict:", "Conclusion:", "within noise of ours", "| brings it back", "| goes ", "| does not"),
)


@pytest.mark.parametrize("quick", [False, True])
def test_a_quick_look_is_measured_and_not_judged(
    small: tg.data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    monkeypatch.setattr(report, "DRAWN", dict.fromkeys(report.DRAWN, lambda results: None))
    monkeypatch.setattr(report, "look_inside", lambda *arguments: [])
    configs = [c for e in EXPERIMENTS.values() for c in e.configurations([0], None, quick).values()]
    different = {report.identity(c): c for c in configs}.values()
    results = [made(config, number) for number, config in enumerate(different)]
    path = report.write_report(tmp_path, results, small, None, quick)[0]
    text = path.read_text(encoding="utf-8")
    assert (experiments.QUICK_SAYS in text) == quick
    found = [word for word in VERDICTS if word in text.replace(experiments.QUICK_SAYS, "")]
    assert not found if quick else {"| verdict", "Verdict:", "Conclusion:", "within noise of ours"} <= {*found}
    claims = [(report.words(claim), e.name) for e in EXPERIMENTS.values() for claim in e.claims]
    for words, name in claims:
        (row,) = re.findall(rf"^\|.*\| {re.escape(words)} \|(.*)\|$", text, re.MULTILINE)
        measured, *verdict = row.split(" | ")
        assert re.search(r"\d ± \d", measured), f"{name}: what was measured"
        assert len(verdict) == (0 if quick else 1)


def quick_look(out: Path, *options: Any) -> tuple[str, list[dict[str, Any]]]:
    """Take a quick look; returns the report and the results."""
    command = [*COMMAND, "--quick", "--quiet", "--out", out, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    text = (out / "report.md").read_text()
    assert experiments.QUICK_SAYS in text and experiments.QUICK_SAYS in done.stdout
    results = [*running.stored(out / "results", pytest.fail).values()]
    assert {r["config"]["limit"] for r in results} == {8_000} and {r["config"]["seed"] for r in results} == {0}
    return text, results


@pytest.mark.slow
def test_the_quick_look_takes_everything_in(tmp_path: Path) -> None:
    """From fewer images than it would take: what is learned from those is seen in the next test."""
    mnist, few = tg.data.find_mnist(), tmp_path / "few"
    few.mkdir()
    for name, images, labels in (
        ("train", mnist.images[:2000], mnist.labels[:2000]),
        ("t10k", mnist.test_images[:500], mnist.test_labels[:500]),
    ):
        (few / f"{name}-images-idx3-ubyte").write_bytes(tg.data.encode_idx(images))
        (few / f"{name}-labels-idx1-ubyte").write_bytes(tg.data.encode_idx(labels))
    text, results = quick_look(tmp_path / "out", "--data", few)
    assert "Not run" not in text and NOT_MEASURED not in text and not [word for word in VERDICTS if word in text]
    assert text.count("](pictures/") >= 15 and len(results) >= 18


@pytest.mark.slow
def test_a_quick_look_reads_digits(tmp_path: Path) -> None:
    _, results = quick_look(tmp_path / "out", "--experiments", "initialisation", "recipes")
    (paper,) = [r for r in results if r["config"] == configuration({}, 0, quick=True)]
    (best,) = [r for r in results if r["config"]["optimizer"] == "muon"]
    assert best["test_accuracy"] > paper["test_accuracy"] > 0.9
