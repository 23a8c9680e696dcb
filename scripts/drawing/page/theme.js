/** Light or dark: as the system is, unless the other one was chosen. */

import { $ } from "./elements.js";

const dark = matchMedia("(prefers-color-scheme: dark)");

let changed = () => {}; // what to do then

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
  changed();
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

/** Make the switch; `action` is called when colours have changed. */
export function offerThemes(action) {
  changed = action;
  $("theme").addEventListener("click", switchTheme);
  dark.addEventListener("change", followTheme);
  followTheme();
}
