/** Why the network answers so: gradient, occlusion, and the maps of every convolution. */

import { ask, Latest } from "./client.js";
import { $, element } from "./elements.js";
import { decode, paintMap, paintNothing, paintSigned, percent } from "./figures.js";
import { problem } from "./problems.js";

/** Put {model, image, target} to it. */
export const explainer = new Latest((question) => ask("api/explain", question), showReasons, problem, $("reasons"));

/** Show that there is nothing to explain. */
export function showNoReasons() {
  paintNothing($("saliency"));
  paintNothing($("occlusion"));
  $("ranges").textContent = "";
  showLayers([]);
  $("no-layers").textContent = "Draw something to see it.";
}

function showReasons(answer, { image, target: digit }) {
  const steepest = paintSigned($("saliency"), answer.saliency, image);
  const most = paintSigned($("occlusion"), answer.occlusion, image);
  $("saliency").ariaLabel = `Gradient of the logit of ${digit} by each pixel, at most ${steepest.toPrecision(2)}`;
  $("occlusion").ariaLabel = `Change of the probability of ${digit} when a patch is covered, at most ${percent(most)}`;
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
  const size = ` ${channels} × ${height} × ${width} `;
  const heading = element("h3", "", element("code", "", name), size, element("span", "range quiet"));
  const maps = element("div", `maps ${height >= 20 ? "large" : height >= 8 ? "middle" : "small"}`);
  maps.role = "img";
  maps.ariaLabel = `${channels} feature maps of ${height} × ${width} of ${name}`;
  maps.append(...Array.from({ length: channels }, () => element("canvas", "pixels")));
  const part = element("section", "", heading, maps);
  part.dataset.name = title;
  return part;
}
