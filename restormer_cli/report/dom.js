"use strict";

/* Elements and words. Text from the data only ever becomes text, never markup. */

const find = (id) => document.getElementById(id);

/** An element with properties, some of them data-… or aria-…, and children. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A row of radio buttons that looks like one control; calls `choose` with the value. */
function segments(fieldset, name, choices, chosen, choose) {
  for (const { value, label, count } of choices) {
    const input = make("input", { type: "radio", name, value, checked: value === chosen });
    input.addEventListener("change", () => choose(value));
    const text = make("span", {}, label, count === undefined ? null : make("small", {}, count.toLocaleString("en")));
    fieldset.append(make("label", {}, input, text));
  }
}

/** JSON has no infinity; the report writes "inf" where two pictures are equal. */
const number = (value) => (value === "inf" ? Infinity : value);
const decibels = (value, digits = 2) => (value === Infinity ? "∞" : value.toFixed(digits));
/** A metric of some figures, as its row in the table of metrics says. */
const figureOf = (metric, figures) => decibels(number(figures[metric.key]), metric.decimals);
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** What is known of a row beyond its data: figures as numbers, and the place among all. */
function prepare(row, place) {
  row.place = place;
  row.psnr = row.after ? number(row.after.psnr) : null;
  row.gain = null;
  if (row.after && row.before && row.before.psnr !== "inf" && row.after.psnr !== "inf") {
    row.gain = row.after.psnr - row.before.psnr;
  }
  row.folded = row.name.toLocaleLowerCase();
  return row;
}

const STATUSES = {
  restored: "Restored",
  failed: "Failed",
  missing: "Not restored",
  uncompared: "Not compared",
};
const ROLES = { input: "Before", result: "After", target: "Target" };
