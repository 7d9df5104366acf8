// What the forms of mask_cells.js are made of.

import { make } from "./element.js";

/** A cell whose strength can be set; name: what it stands for. */
export function makeCell(name, attributes) {
  return make("div", "cell", { role: "slider", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 1, ...attributes });
}

export function makeLabel(text, style = "") {
  const label = make("span", `label ${style}`.trim(), { "aria-hidden": true });
  label.textContent = text;
  return label;
}
