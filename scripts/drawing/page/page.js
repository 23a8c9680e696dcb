/** The page: what is drawn is read, explained and changed into other digits. */

import { ask, Latest, Lost } from "./client.js";
import { decode, element, encode, paintImage, paintMap, paintNothing, paintSigned, percent } from "./figures.js";
import { Paper } from "./paper.js";

const UNSURE = 0.9; // a probability below this is called unsure, as by predict.py
const PAUSE = 150; // milliseconds without new ink before the answer is explained
const QUIET = 700; // milliseconds without a new answer before it is said to a screen reader
const LOOK_AGAIN = 10_000; // milliseconds between looks for new models and epochs
const LARGEST_FILE = 8_000_000; // bytes
const REACHED = 0.99; // probability of another digit at which the image is changed no further
const MOST_STEPS = 200;
const GONE = 404; // status of a model that is not there any more

const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");
const paper = new Paper($("paper"), { changed: read, chosen: choose });

let models = [];
let digits = []; // that were found in the drawing
let chosen = 0; // index of the digit that is shown
let target = null; // the other digit
let changed = null; // {image, probabilities, steps}: on the way to the other digit
let changing = null; // the way that is being gone
let lost = false; // whether the server or the model was gone when last asked
let retrying = 0; // timer
let explaining = 0; // timer
let saying = 0; // timer
let playing = 0; // timer

// Problems -------------------------------------------------------------------------------------------------------------
function problem(error) {
  const message = error.message.replace(/^./, (letter) => letter.toUpperCase());
  if ($("problem").hidden || $("problem").textContent !== message) $("problem").textContent = message;
  $("problem").hidden = false;
  if (!(error instanceof Lost) && error.status !== GONE) return;
  lost = true;
  clearTimeout(retrying);
  retrying = setTimeout(look, 1000);
}

function noProblem() {
  $("problem").hidden = true;
}

// Models and epochs ----------------------------------------------------------------------------------------------------
const model = () => models.find(({ id }) => id === $("model").value);

/** The weights of a model in the order of training: [{id, name}], those of each epoch and the selected ones. */
function stages() {
  const { id, epochs = [] } = model() ?? {};
  const named = epochs.map(({ id, epoch }) => ({ id, name: `epoch ${epoch}` }));
  return epochs.some((epoch) => epoch.id === id) ? named : [...named, { id, name: "the end" }];
}

/** The stage that reads. */
const stage = () => stages()[$("epoch").value] ?? stages().at(-1);
const weights = () => stage().id;

/** Look which models there are, now and again. */
async function look() {
  try {
    showModels(await ask("api/models"));
    if (lost) {
      lost = false;
      noProblem();
      read();
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
  $("accuracy").textContent = accuracy ? `accuracy ${(100 * accuracy).toFixed(1)} %` : "";
  nameEpoch();
}

function nameEpoch() {
  $("epoch-name").textContent = stage().name;
  $("epoch").setAttribute("aria-valuetext", $("epoch-name").textContent);
}

function changeWeights() {
  nameEpoch();
  stopChanging();
  read();
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
  }, 800);
}

function stopPlaying() {
  clearInterval(playing);
  playing = 0;
  $("play").textContent = "Watch it learn";
}

// Reading --------------------------------------------------------------------------------------------------------------
const NOTHING = { answer: { digits: [] } };
const reader = new Latest(answerDrawing, showDigits, failToRead, $("answer"));

function failToRead(error) {
  if (!(error instanceof Lost)) showDigits(NOTHING);
  problem(error);
}

async function answerDrawing({ state, id }) {
  if (state.picture) {
    const { file, bitmap } = state.picture;
    const answer = await ask(`api/picture?model=${encodeURIComponent(id)}`, file);
    const [left, top, scale] = Paper.fit(answer.width ?? bitmap.width, answer.height ?? bitmap.height);
    return { answer, place: (box) => box.map((value, i) => value * scale + (i % 2 ? top : left)) };
  }
  const { width, height, bytes } = paper.pixels();
  const answer = await ask("api/read", { model: id, width, height, data: encode(bytes) });
  return { answer, place: Paper.fromPixels };
}

/** Read what is on the sheet. */
function read() {
  const began = performance.now();
  $("undo").disabled = !paper.canUndo;
  $("redo").disabled = !paper.canRedo;
  $("clear").disabled = paper.empty;
  stopChanging();
  const id = weights();
  if (paper.empty || !id) {
    reader.drop();
    showDigits(NOTHING);
  } else reader.put({ state: paper.state, id, began });
}

function showDigits({ answer, place }, question) {
  noProblem();
  digits = answer.digits;
  if (digits.length && !paper.state.picture) chosen = nearest(paper.tip, digits, place);
  chosen = Math.min(chosen, Math.max(digits.length - 1, 0));
  paper.boxes = digits.map(({ box, digit }) => ({ box: place(box), label: digit, chosen: false }));
  $("found").hidden = !digits.length;
  while ($("seen").children.length > digits.length) $("seen").lastChild.remove();
  while ($("seen").children.length < digits.length) $("seen").append(seenDigit($("seen").children.length));
  digits.forEach(({ image, digit, probabilities }, i) => {
    const [input, canvas, name] = $("seen").children[i].children;
    paintImage(canvas, image);
    name.textContent = digit;
    input.setAttribute("aria-label", `${digit}, ${percent(probabilities[digit])}, ${i + 1} of ${digits.length}`);
  });
  showChosen(answer.message);
  if (question) $("bars").dataset.milliseconds = (performance.now() - question.began).toFixed(1);
}

/** The digit whose box is nearest to the point that was drawn last. */
function nearest(point, found, place) {
  const distance = ({ box }) => {
    const [left, top, right, bottom] = place(box);
    return Math.hypot(
      Math.max(left - point[0], 0, point[0] - right),
      Math.max(top - point[1], 0, point[1] - bottom),
    );
  };
  const distances = found.map(distance);
  return distances.indexOf(Math.min(...distances));
}

function seenDigit(index) {
  const input = element("input", "unseen");
  Object.assign(input, { type: "radio", name: "seen" });
  input.addEventListener("change", () => choose(index));
  const canvas = element("canvas", "pixels");
  canvas.setAttribute("aria-hidden", "true");
  return element("label", "", input, canvas, element("span"));
}

/** Show another of the digits that were found. */
function choose(index) {
  chosen = index;
  stopChanging();
  showChosen();
}

function showChosen(message = "") {
  const shown = digits[chosen];
  const order = shown ? [...Array(10).keys()].sort((a, b) => shown.probabilities[b] - shown.probabilities[a]) : [];
  const [first, second] = order;
  const unsure = shown && shown.probabilities[first] < UNSURE;
  $("digit").textContent = shown ? first : "–";
  $("sure").textContent = shown
    ? `${percent(shown.probabilities[first])}${unsure ? ", unsure" : ""}`
    : message || (paper.empty ? "Draw a digit" : "No digit is found");
  $("sure").classList.toggle("unsure", Boolean(unsure));
  $("runner-up").textContent = shown ? `next: ${second}, ${percent(shown.probabilities[second])}` : "";
  [...$("bars").children].forEach((bar, i) => {
    const probability = shown?.probabilities[i] ?? 0;
    bar.classList.toggle("first", i === first);
    bar.querySelector(".fill").style.width = `${100 * probability}%`;
    bar.lastChild.textContent = shown ? percent(probability) : "";
  });
  paper.boxes.forEach((box, i) => (box.chosen = i === chosen));
  paper.paint();
  [...$("seen").children].forEach((label, i) => (label.firstChild.checked = i === chosen));
  const number = digits.map(({ digit }) => digit).join(" ");
  const touching = digits.some((digit) => digit.touching);
  $("note").textContent = [
    digits.length > 1 ? `Read from left to right: ${number}. Choose one to see why.` : "",
    touching ? "Some touch each other; drawn apart, they are read better." : "",
  ].join(" ");
  for (const name of document.querySelectorAll(".winner")) name.textContent = shown ? `the ${first}` : "the answer";
  plan(shown, first, second, number);
}

/** Explain the answer, and say it, when nothing new comes for a moment. */
function plan(shown, first, second, number) {
  clearTimeout(explaining);
  clearTimeout(saying);
  explainer.drop();
  if (!shown) {
    showNoReasons();
    $("said").textContent = "";
    return;
  }
  if (!changed) showChanged();
  explaining = setTimeout(() => explainer.put({ model: weights(), image: shown.image, target: first }), PAUSE);
  const several = digits.length > 1 ? `Reads ${number}. Shown is digit ${chosen + 1}: ` : "Reads ";
  const doubt = shown.probabilities[first] < UNSURE ? ", unsure" : "";
  saying = setTimeout(() => {
    const second_ = `next is ${second}, ${percent(shown.probabilities[second])}`;
    $("said").textContent = `${several}${first}, ${percent(shown.probabilities[first])}${doubt}; ${second_}.`;
  }, QUIET);
}

// Reasons --------------------------------------------------------------------------------------------------------------
const explainer = new Latest((question) => ask("api/explain", question), showReasons, problem, $("reasons"));

function showNoReasons() {
  paintNothing($("saliency"));
  paintNothing($("occlusion"));
  paintNothing($("changed"));
  $("ranges").textContent = $("ascended").textContent = "";
  $("target-fill").style.width = 0;
  $("ascend").disabled = $("reset").disabled = true;
  showLayers([]);
  $("no-layers").textContent = "Draw something to see it.";
}

function showReasons(answer, { image, target: digit }) {
  const steepest = paintSigned($("saliency"), answer.saliency, image);
  const most = paintSigned($("occlusion"), answer.occlusion, image);
  $("saliency").setAttribute("aria-label", `Gradient of the logit of ${digit} by each pixel, at most ${steepest.toFixed(2)}`);
  $("occlusion").setAttribute("aria-label", `Change of the probability of ${digit} when a patch is covered, at most ${most.toFixed(2)}`);
  $("ranges").textContent = `Full colour: a gradient of ${steepest.toPrecision(2)}, a change of ${percent(most)}.`;
  showLayers(answer.layers);
}

/** Show the maps of every convolution; elements are kept while the model stays the same. */
function showLayers(layers) {
  const names = layers.map(({ name, shape }) => `${name}, ${shape.join(" × ")}`);
  $("no-layers").textContent = layers.length ? "" : "This model has no convolution.";
  $("layers-legend").hidden = !layers.length;
  const shown = [...$("layers").querySelectorAll("section")];
  if (JSON.stringify(shown.map((part) => part.dataset.name)) !== JSON.stringify(names)) {
    $("layers").replaceChildren(...layers.map((layer, i) => layerPart(layer, names[i])));
  }
  [...$("layers").children].forEach((part, i) => {
    const { shape, maps, low, high } = layers[i];
    part.querySelector(".range").textContent = `${low.toFixed(2)} to ${high.toFixed(2)}`.replaceAll("-", "−");
    const canvases = part.querySelectorAll("canvas");
    maps.forEach((map, channel) => paintMap(canvases[channel], shape[2], decode(map), low, high));
  });
}

function layerPart({ name, shape }, title) {
  const [channels, height, width] = shape;
  const heading = element("h3", "", element("code", "", name), ` ${channels} × ${height} × ${width} `, element("span", "range quiet"));
  const maps = element("div", `maps ${height >= 20 ? "large" : height >= 8 ? "middle" : "small"}`);
  maps.setAttribute("role", "img");
  maps.setAttribute("aria-label", `${channels} feature maps of ${height} × ${width} of ${name}`);
  maps.append(...Array.from({ length: channels }, () => element("canvas", "pixels")));
  const part = element("section", "", heading, maps);
  part.dataset.name = title;
  return part;
}

// Another digit --------------------------------------------------------------------------------------------------------
function pauseChanging() {
  changing = null;
  $("ascend").textContent = "Change it";
}

function stopChanging() {
  pauseChanging();
  changed = null;
  if (digits[chosen]) showChanged();
}

function showChanged() {
  const { image, probabilities, steps } = changed ?? { ...digits[chosen], steps: 0 };
  paintImage($("changed"), image);
  const probability = target === null ? 0 : probabilities[target];
  $("target-fill").style.width = `${100 * probability}%`;
  const read = probabilities.indexOf(Math.max(...probabilities));
  $("ascended").textContent =
    target === null ? "" : `${target}: ${percent(probability)} after ${steps} steps; read as ${read}`;
  $("ascend").disabled = target === null;
  $("reset").disabled = !changed;
}

/** Change the image step by step until the network sees the other digit. */
async function ascend() {
  if (changing) {
    pauseChanging();
    return;
  }
  if (!digits[chosen] || target === null) return;
  const way = (changing = {});
  $("ascend").textContent = "Stop";
  changed ??= { ...digits[chosen], steps: 0 };
  const steps = calm.matches ? 20 : 1;
  try {
    while (changed.probabilities[target] < REACHED && changed.steps < MOST_STEPS) {
      const answer = await ask("api/ascend", { model: weights(), image: changed.image, target, steps });
      if (way !== changing) return;
      changed = { ...answer, steps: changed.steps + steps };
      showChanged();
      await new Promise(requestAnimationFrame);
      if (way !== changing) return;
    }
  } catch (error) {
    problem(error);
  }
  if (way === changing) pauseChanging();
}

// Pictures -------------------------------------------------------------------------------------------------------------
/** Read a picture that was dropped, pasted or chosen. */
async function openPicture(file) {
  if (!file) {
    problem(new Error("That is no picture file; drop, paste or open one, such as a PNG or a JPEG."));
    return;
  }
  if (file.size > LARGEST_FILE) {
    problem(new Error("This file has more than 8 MB; make the picture smaller."));
    return;
  }
  const bitmap = await createImageBitmap(file).catch(() => null); // what only the server can read is not shown
  paper.showPicture({ file, bitmap });
}

function takePictures() {
  $("open").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    openPicture($("file").files[0]);
    $("file").value = "";
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    openPicture(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => openPicture(event.clipboardData.files[0]));
}

// Keys, theme ----------------------------------------------------------------------------------------------------------
function press(event) {
  const key = event.key.toLowerCase();
  const typed = event.target.matches("select, input[type=range]");
  if ((event.ctrlKey || event.metaKey) && key === "z") event.shiftKey ? paper.redo() : paper.undo();
  else if ((event.ctrlKey || event.metaKey) && key === "y") paper.redo();
  else if ((key === "delete" || key === "escape") && !typed) paper.clear();
  else return;
  event.preventDefault();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
  paper.paint();
}

/** The system's theme, unless another one was chosen. */
function followTheme() {
  setTheme(localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light"));
}

function switchTheme() {
  const theme = $("theme").textContent.toLowerCase();
  if ((theme === "dark") === dark.matches) localStorage.removeItem("theme");
  else localStorage.setItem("theme", theme);
  setTheme(theme);
}

// Begin ----------------------------------------------------------------------------------------------------------------
function begin() {
  for (let digit = 0; digit < 10; digit += 1) {
    const track = element("span", "track", element("span", "fill"));
    $("bars").append(element("li", "", element("span", "name", String(digit)), track, element("span", "value")));
    const input = element("input", "unseen");
    Object.assign(input, { type: "radio", name: "target", value: digit });
    input.addEventListener("change", () => {
      target = digit;
      stopChanging();
      ascend();
    });
    $("targets").append(element("label", "", input, element("span", "", String(digit))));
  }
  for (const name of ["undo", "redo", "clear"]) $(name).addEventListener("click", () => paper[name]());
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
  $("ascend").addEventListener("click", ascend);
  $("reset").addEventListener("click", stopChanging);
  $("theme").addEventListener("click", switchTheme);
  document.addEventListener("keydown", press);
  dark.addEventListener("change", followTheme);
  followTheme();
  takePictures();
  read();
  look();
  setInterval(() => document.hidden || look(), LOOK_AGAIN);
}

begin();
