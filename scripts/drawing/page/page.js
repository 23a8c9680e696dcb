/** The page: what is drawn is read, and the answer shown. */

import { ask, Latest, Lost } from "./client.js";
import { $, element } from "./elements.js";
import { encode, paintImage, percent } from "./figures.js";
import { changeFrom, offerOthers } from "./other.js";
import { Paper } from "./paper.js";
import { takePictures } from "./pictures.js";
import { noProblem, problem } from "./problems.js";
import { explainer, showNoReasons } from "./reasons.js";
import { offerThemes } from "./theme.js";
import { offerWeights, weights } from "./weights.js";

const UNSURE = 0.9; // a probability below this is called unsure, as by predict.py
const PAUSE = 150; // milliseconds without new ink before the answer is explained
const QUIET = 700; // milliseconds without a new answer before it is said to a screen reader
const NOTHING = { answer: { digits: [] } };

const paper = new Paper($("paper"), { changed: read, chosen: choose });
const reader = new Latest(answerDrawing, showDigits, failToRead, $("answer"));

let digits = []; // that were found in the drawing
let chosen = 0; // index of the digit that is shown
let explaining = 0; // timer
let saying = 0; // timer

function failToRead(error) {
  if (!(error instanceof Lost)) showDigits(NOTHING);
  problem(error);
}

async function answerDrawing({ state, id }) {
  if (state.picture) {
    const { file, bitmap } = state.picture;
    const answer = await ask(`api/picture?model=${encodeURIComponent(id)}`, file);
    if (!bitmap) return { answer };
    const [left, top, scale] = Paper.fit(bitmap.width, bitmap.height);
    return { answer, place: (box) => box.map((value, i) => value * scale + (i % 2 ? top : left)) };
  }
  const { left, top, width, height, bytes } = paper.pixels();
  const answer = await ask("api/read", { model: id, width, height, data: encode(bytes) });
  return { answer, place: (box) => box.map((value, i) => value + (i % 2 ? top : left)) };
}

/** Read what is on the sheet. */
function read() {
  const began = performance.now();
  $("undo").disabled = !paper.canUndo;
  $("redo").disabled = !paper.canRedo;
  $("clear").disabled = paper.empty;
  const id = weights();
  if (paper.empty || !id) {
    reader.drop();
    showDigits(NOTHING);
  } else reader.put({ state: paper.state, id, began });
}

function showDigits({ answer, place }, question) {
  if (question) noProblem();
  digits = answer.digits;
  if (digits.length && !paper.state.picture) chosen = nearest(paper.tip, digits, place);
  chosen = Math.min(chosen, Math.max(digits.length - 1, 0));
  paper.boxes = place ? digits.map(({ box, digit }) => ({ box: place(box), label: digit, chosen: false })) : [];
  $("found").hidden = !digits.length;
  while ($("seen").children.length > digits.length) $("seen").lastChild.remove();
  while ($("seen").children.length < digits.length) $("seen").append(seenDigit($("seen").children.length));
  digits.forEach(({ image, digit, probabilities }, i) => {
    const [input, canvas, name] = $("seen").children[i].children;
    paintImage(canvas, image);
    name.textContent = digit;
    input.ariaLabel = `${digit}, ${percent(probabilities[digit])}, ${i + 1} of ${digits.length}`;
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
  canvas.ariaHidden = "true";
  return element("label", "", input, canvas, element("span"));
}

/** Show another of the digits that were found. */
function choose(index) {
  chosen = index;
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
    paper.state.picture && !paper.state.picture.bitmap ? "This browser cannot show a picture of this kind." : "",
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
  changeFrom(shown ?? null);
  if (!shown) {
    showNoReasons();
    $("said").textContent = "";
    return;
  }
  explaining = setTimeout(() => explainer.put({ model: weights(), image: shown.image, target: first }), PAUSE);
  const several = digits.length > 1 ? `Reads ${number}. Shown is digit ${chosen + 1}: ` : "Reads ";
  const doubt = shown.probabilities[first] < UNSURE ? ", unsure" : "";
  saying = setTimeout(() => {
    const next = `next is ${second}, ${percent(shown.probabilities[second])}`;
    $("said").textContent = `${several}${first}, ${percent(shown.probabilities[first])}${doubt}; ${next}.`;
  }, QUIET);
}

function press(event) {
  const key = event.key.toLowerCase();
  const typed = event.target.matches("select, input[type=range]");
  if ((event.ctrlKey || event.metaKey) && key === "z") event.shiftKey ? paper.redo() : paper.undo();
  else if ((event.ctrlKey || event.metaKey) && key === "y") paper.redo();
  else if ((key === "delete" || key === "escape") && !typed) paper.clear();
  else return;
  event.preventDefault();
}

for (let digit = 0; digit < 10; digit += 1) {
  const track = element("span", "track", element("span", "fill"));
  $("bars").append(element("li", "", element("span", "", String(digit)), track, element("span", "value")));
}
for (const name of ["undo", "redo", "clear"]) $(name).addEventListener("click", () => paper[name]());
document.addEventListener("keydown", press);
offerThemes(() => paper.paint());
offerOthers();
takePictures((picture) => paper.showPicture(picture));
read();
offerWeights(read);
