// Tables that change while they are displayed: rows and their contents keep their place and their focus.

import { create, rateText, setText } from "./dom.js";

/** Points of a line: five minutes at one point every two seconds. */
export const POINTS = 150;
const WIDTH = 150;
const HEIGHT = 28;
const SVG = "http://www.w3.org/2000/svg";

/**
 * Fills a table: `rows` as `{ id, cells }`, a cell being a text, `{ line: values }`, `{ href, text }` or `{
 * button, label, press, disabled }`, where `label` is the full text for screen readers.
 */
export function fill(body, rows) {
  const known = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  rows.forEach(({ id, cells }, index) => {
    const row = known.get(id) ?? create("tr");
    known.delete(id);
    row.dataset.id = id;
    cells.forEach((content, column) => fillCell(row.cells[column] ?? row.appendChild(create("td")), content));
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  for (const gone of known.values()) gone.remove();
}

function fillCell(cell, content) {
  if (content?.line) draw(cell, content.line);
  else if (content?.href) link(cell, content);
  else if (content?.button) button(cell, content);
  else setText(cell, String(content));
}

function link(cell, { href, text }) {
  if (!cell.querySelector("a")) cell.replaceChildren(create("a"));
  const anchor = cell.firstChild;
  if (anchor.getAttribute("href") !== href) anchor.href = href;
  setText(anchor, text);
}

function button(cell, { button: text, label, press, disabled = false }) {
  if (!cell.querySelector("button")) {
    const made = create("button");
    made.type = "button";
    cell.replaceChildren(made);
  }
  const own = cell.firstChild;
  setText(own, text);
  own.setAttribute("aria-label", label);
  own.disabled = disabled;
  own.onclick = press;
}

/** A line of the values, scaled from zero to the largest. */
function draw(cell, values) {
  let svg = cell.querySelector("svg");
  if (!svg) {
    svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("role", "img");
    svg.classList.add("spark");
    svg.append(document.createElementNS(SVG, "polyline"));
    cell.append(svg);
  }
  const top = Math.max(...values, 1);
  const point = (value, index) => {
    const x = WIDTH - ((values.length - 1 - index) * WIDTH) / (POINTS - 1);
    return `${x.toFixed(1)},${(HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(1)}`;
  };
  svg.firstChild.setAttribute("points", values.map(point).join(" "));
  svg.setAttribute("aria-label", `at most ${rateText(top)}`);
}
