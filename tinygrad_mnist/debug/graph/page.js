"use strict";
const svg = document.querySelector("svg");
const view = document.getElementById("view");
const details = document.getElementById("details");
const whole = svg.viewBox.baseVal;
const all = { x: whole.x, y: whole.y, width: whole.width, height: whole.height };
const now = { x: 0, y: 0, scale: 1 }; // the upper left corner, and pixels for each unit

function show() {
  const width = view.clientWidth / now.scale;
  const height = view.clientHeight / now.scale;
  // A corner of the picture always stays in sight.
  const keep = 60 / now.scale;
  now.x = Math.min(Math.max(now.x, all.x + keep - width), all.x + all.width - keep);
  now.y = Math.min(Math.max(now.y, all.y + keep - height), all.y + all.height - keep);
  svg.setAttribute("viewBox", [now.x, now.y, width, height].join(" "));
}

function fit() {
  now.scale = Math.min(view.clientWidth / all.width, view.clientHeight / all.height, 1.4);
  now.x = all.x + (all.width - view.clientWidth / now.scale) / 2;
  now.y = all.y + (all.height - view.clientHeight / now.scale) / 2;
  show();
}

// At first the text can be read: what is too tall begins at the top, what is too wide at the first op.
function begin() {
  fit();
  const least = Math.min(Math.max(view.clientWidth / all.width, 0.65), 1.1);
  if (now.scale >= least) return;
  now.scale = least;
  const width = view.clientWidth / now.scale;
  // 77 is half the width of a box.
  const first = document.querySelector(".nodes .op, .nodes .group, .nodes g").transform.baseVal[0].matrix;
  now.x = all.width > width ? Math.max(all.x, first.e + 77 - width / 2) : all.x + (all.width - width) / 2;
  now.y = all.y;
  show();
}

function zoom(factor, x = view.clientWidth / 2, y = view.clientHeight / 2) {
  const scale = Math.min(Math.max(now.scale * factor, 0.03), 6);
  now.x += x / now.scale - x / scale;
  now.y += y / now.scale - y / scale;
  now.scale = scale;
  show();
}

function move(x, y) {
  now.x += x / now.scale;
  now.y += y / now.scale;
  show();
}

svg.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = svg.getBoundingClientRect();
  const lines = event.deltaMode === 1 ? 20 : 1;
  zoom(Math.exp(-event.deltaY * lines * 0.0015), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });

// One pointer moves the picture, two zoom it.
const pointers = new Map();
const spread = () => {
  const [a, b] = pointers.values();
  return Math.hypot(a.x - b.x, a.y - b.y);
};
svg.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
});
svg.addEventListener("pointermove", (event) => {
  const last = pointers.get(event.pointerId);
  if (!last) return;
  const place = { x: event.clientX, y: event.clientY };
  if (pointers.size === 1) {
    if (!svg.classList.contains("moving") && Math.hypot(place.x - last.x, place.y - last.y) < 4) return;
    svg.classList.add("moving");
    svg.setPointerCapture(event.pointerId);
    move(last.x - place.x, last.y - place.y);
    pointers.set(event.pointerId, place);
  } else if (pointers.size === 2) {
    const before = spread();
    pointers.set(event.pointerId, place);
    const box = svg.getBoundingClientRect();
    const [a, b] = pointers.values();
    if (before) zoom(spread() / before, (a.x + b.x) / 2 - box.left, (a.y + b.y) / 2 - box.top);
  }
});
for (const name of ["pointerup", "pointercancel", "pointerleave"]) {
  svg.addEventListener(name, (event) => {
    pointers.delete(event.pointerId);
    if (!pointers.size) svg.classList.remove("moving");
  });
}

document.getElementById("smaller").onclick = () => zoom(1 / 1.3);
document.getElementById("larger").onclick = () => zoom(1.3);
document.getElementById("all").onclick = () => fit();
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  const step = 80;
  const keys = {
    "+": () => zoom(1.3),
    "=": () => zoom(1.3),
    "-": () => zoom(1 / 1.3),
    0: () => fit(),
    ArrowLeft: () => move(-step, 0),
    ArrowRight: () => move(step, 0),
    ArrowUp: () => move(0, -step),
    ArrowDown: () => move(0, step),
    Escape: hide,
  };
  if (keys[event.key]) {
    keys[event.key]();
    event.preventDefault();
  }
});
for (const choice of document.querySelectorAll("input[name=colour]")) {
  choice.onchange = () => { document.body.dataset.colour = choice.value; };
}

// What is under the mouse, or has the focus, tells about itself.
const edges = [...document.querySelectorAll(".edges path")];
function tell(node) {
  details.textContent = node.getAttribute("aria-label");
  details.hidden = false;
  const box = node.getBoundingClientRect();
  const right = box.right + 10 + details.offsetWidth < innerWidth;
  const left = right ? box.right + 10 : box.left - 10 - details.offsetWidth;
  const lowest = innerHeight - details.offsetHeight - 8;
  details.style.left = `${Math.max(8, Math.min(left, innerWidth - details.offsetWidth - 8))}px`;
  details.style.top = `${Math.max(8, Math.min(box.top, lowest))}px`;
  for (const edge of edges) {
    edge.classList.toggle("near", edge.dataset.from === node.id || edge.dataset.to === node.id);
  }
}
function hide() {
  details.hidden = true;
  for (const edge of edges) edge.classList.remove("near");
}
for (const node of document.querySelectorAll(".nodes > g")) {
  node.addEventListener("pointerenter", () => tell(node));
  node.addEventListener("pointerleave", hide);
  node.addEventListener("blur", hide);
  node.addEventListener("focus", () => {
    const box = node.getBoundingClientRect();
    const frame = view.getBoundingClientRect();
    const outside = box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom;
    if (outside) {
      move((box.left + box.right - frame.left - frame.right) / 2, (box.top + box.bottom - frame.top - frame.bottom) / 2);
    }
    tell(node);
  });
}
addEventListener("resize", show);
begin();
