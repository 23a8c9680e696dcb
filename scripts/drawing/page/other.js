/** What the network would need to see for another digit: the image is changed step by step. */

import { ask } from "./client.js";
import { $, element } from "./elements.js";
import { paintImage, paintNothing, percent } from "./figures.js";
import { problem } from "./problems.js";
import { weights } from "./weights.js";

const REACHED = 0.99; // probability at which the image is changed no further
const MOST_STEPS = 200;

const calm = matchMedia("(prefers-reduced-motion: reduce)");

let first = null; // the digit that was drawn: {image, probabilities}
let changed = null; // {image, probabilities, steps}
let target = null; // the other digit
let way = null; // that is being gone

/** Begin with another image, or with none. */
export function changeFrom(digit) {
  first = digit;
  reset();
}

function reset() {
  pause();
  changed = first && { ...first, steps: 0 };
  show();
}

function pause() {
  way = null;
  $("ascend").textContent = "Change it";
}

function show() {
  const aim = changed && target !== null;
  if (changed) paintImage($("changed"), changed.image);
  else paintNothing($("changed"));
  $("ascend").disabled = !aim;
  $("reset").disabled = !changed?.steps;
  $("target-fill").style.width = aim ? `${100 * changed.probabilities[target]}%` : 0;
  $("ascended").textContent = aim ? describe(changed) : "";
}

function describe({ probabilities, steps }) {
  const winner = probabilities.indexOf(Math.max(...probabilities));
  return `${target}: ${percent(probabilities[target])} after ${steps} steps; read as ${winner}`;
}

/** Go on until the network sees the other digit, or until another way is begun. */
async function ascend() {
  if (!changed) return;
  const own = (way = {});
  const steps = calm.matches ? 20 : 1;
  $("ascend").textContent = "Stop";
  try {
    while (changed.probabilities[target] < REACHED && changed.steps < MOST_STEPS) {
      const answer = await ask("api/ascend", { model: weights(), image: changed.image, target, steps });
      if (own !== way) return;
      changed = { ...answer, steps: changed.steps + steps };
      show();
    }
  } catch (error) {
    if (own !== way) return;
    problem(error);
  }
  pause();
}

/** Make the choice of digits and the buttons. */
export function offerOthers() {
  for (let digit = 0; digit < 10; digit += 1) {
    const input = element("input", "unseen");
    Object.assign(input, { type: "radio", name: "target", value: digit });
    input.addEventListener("change", () => {
      target = digit;
      reset();
      ascend();
    });
    $("targets").append(element("label", "", input, element("span", "", String(digit))));
  }
  $("ascend").addEventListener("click", () => (way ? pause() : ascend()));
  $("reset").addEventListener("click", reset);
}
