/** The choice of a model and of an epoch: which weights read. */

import { ask } from "./client.js";
import { $ } from "./elements.js";
import { isLost, noProblem, problem, whenLost } from "./problems.js";

const LOOK_AGAIN = 10_000; // milliseconds between looks for new models and epochs
const STAGE = 800; // milliseconds that each epoch is shown

let models = [];
let playing = 0; // timer
let changed = () => {}; // what to do when other weights are chosen

const model = () => models.find(({ id }) => id === $("model").value);

/** The weights of a model in the order of training: [{id, name}], those of each epoch and the selected ones. */
function stages() {
  const { id, epochs = [] } = model() ?? {};
  const named = epochs.map(({ id, epoch }) => ({ id, name: `epoch ${epoch}` }));
  return epochs.some((epoch) => epoch.id === id) ? named : [...named, { id, name: "the selected epoch" }];
}

/** The stage that reads. */
const stage = () => stages()[$("epoch").value] ?? stages().at(-1);
export const weights = () => stage().id;

/** Look which models there are. */
async function look() {
  try {
    showModels(await ask("api/models"));
    if (isLost()) {
      noProblem();
      changed();
    }
    if (!models.length) problem(new Error("There are no weights yet: train a network by scripts/train_mnist.py."));
  } catch (error) {
    problem(error);
  }
}

function showModels(answer) {
  if (JSON.stringify(answer.models) === JSON.stringify(models)) return;
  const [before, used] = [model(), weights()];
  models = answer.models;
  $("model").replaceChildren(...models.map(({ id, label }) => new Option(label, id)));
  const same = models.find(({ id }) => id === before?.id) ?? models.find(({ label }) => label === before?.label);
  $("model").value = same?.id ?? answer.default;
  showEpochs(used);
  if (weights() !== used) changeWeights();
}

function showEpochs(selected) {
  const { accuracy } = model() ?? {};
  const last = stages().length - 1;
  const index = stages().findIndex(({ id }) => id === selected);
  $("epochs").hidden = last === 0;
  $("epoch").max = last;
  $("epoch").value = index < 0 ? last : index;
  $("accuracy").textContent = accuracy ? `accuracy ${(100 * accuracy).toFixed(2)} %` : "";
  nameEpoch();
}

function nameEpoch() {
  $("epoch-name").textContent = stage().name;
  $("epoch").setAttribute("aria-valuetext", $("epoch-name").textContent);
}

function changeWeights() {
  nameEpoch();
  changed();
}

function play() {
  if (playing) {
    stopPlaying();
    return;
  }
  $("play").textContent = "Stop";
  $("epoch").value = 0;
  changeWeights();
  playing = setInterval(() => {
    if ($("epoch").value === $("epoch").max) stopPlaying();
    else {
      $("epoch").stepUp();
      changeWeights();
    }
  }, STAGE);
}

function stopPlaying() {
  clearInterval(playing);
  playing = 0;
  $("play").textContent = "Watch it learn";
}

/** Look for models, now and again; `action` is called when other weights are chosen. */
export function offerWeights(action) {
  changed = action;
  whenLost(look);
  $("model").addEventListener("change", () => {
    stopPlaying();
    showEpochs();
    changeWeights();
  });
  $("epoch").addEventListener("input", () => {
    stopPlaying();
    changeWeights();
  });
  $("play").addEventListener("click", play);
  look();
  setInterval(() => document.hidden || look(), LOOK_AGAIN);
}
