/** What went wrong, in words: it is shown until things go well again, or for a while. */

import { Lost } from "./client.js";
import { $ } from "./elements.js";

const GONE = 404; // status of a model that is not there any more
const AGAIN = 1000; // milliseconds until a lost server is asked again
const SHOWN = 10_000; // milliseconds that other problems are shown

let lost = false;
let timer = 0;
let retry = () => {};

/** Say what to do some time after the server was lost. */
export function whenLost(action) {
  retry = action;
}

export function problem(error) {
  const message = error.message.replace(/^./, (letter) => letter.toUpperCase());
  if ($("problem").hidden || $("problem").textContent !== message) $("problem").textContent = message;
  $("problem").hidden = false;
  clearTimeout(timer);
  lost = error instanceof Lost || error.status === GONE;
  timer = lost ? setTimeout(retry, AGAIN) : setTimeout(noProblem, SHOWN);
}

/** Hide the problem; return whether server or model had been lost. */
export function noProblem() {
  const before = lost;
  $("problem").hidden = true;
  clearTimeout(timer);
  lost = false;
  return before;
}

export const isLost = () => lost;
