// An operator's view: what runs, how much goes through it, what was recorded. It reads, and changes nothing.

import { at, bytesText, create, durationText, rateText, setText } from "./lib/dom.js";
import { follow, pathOf, takeText } from "./lib/server.js";

/** Points of a line: at one every two seconds, five minutes. */
const POINTS = 150;
const WIDTH = 150;
const HEIGHT = 28;
const SVG = "http://www.w3.org/2000/svg";

const history = new Map(); // id -> values
let last = null; // { at, roles } of the last answer

/** Remembers a value; gives all that are remembered of that line. */
function remember(id, value) {
  const values = history.get(id) ?? [];
  values.push(value);
  if (values.length > POINTS) values.shift();
  history.set(id, values);
  return values;
}

/** Fills a table: `rows` as `{ id, cells }`, a cell being a text, an element, or `{ line }`. Rows keep their place. */
function fill(body, rows) {
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
  else setText(cell, String(content));
}

function link(cell, { href, text }) {
  if (!cell.querySelector("a")) cell.replaceChildren(create("a"));
  const anchor = cell.firstChild;
  if (anchor.getAttribute("href") !== href) anchor.href = href;
  setText(anchor, text);
}

/** A line of the values, from nothing to their greatest. */
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

function showRoles(roles) {
  const now = performance.now();
  const before = last && new Map(last.roles.map((role) => [role.name, role]));
  const rate = (role, field) => {
    const then = before?.get(role.name);
    return then ? Math.max(0, ((role[field] - then[field]) * 8000) / (now - last.at)) : 0;
  };
  fill(at("roles"), roles.map((role) => {
    const out = rate(role, "bytes_out");
    const line = before ? remember(`role ${role.name}`, out) : [];
    return { id: role.name, cells: [role.name, role.viewers, role.sources, role.connections,
      rateText(rate(role, "bytes_in")), rateText(out), { line }, role.skips, role.cut] };
  }));
  last = { at: now, roles };
}

function showStreams(streams) {
  fill(at("streams"), streams.map((stream) => {
    const size = stream.width ? `${stream.width}×${stream.height}` : "–";
    const line = remember(`stream ${stream.key}`, stream.bitrate);
    const watch = { href: `index.html?stream=${encodeURIComponent(stream.key)}`, text: stream.key };
    return { id: stream.key, cells: [watch, stream.live ? "live" : "waits for its publisher", stream.viewers, size,
      [stream.video, stream.audio].filter(Boolean).join(" + ") || "–", rateText(stream.bitrate), { line },
      durationText(stream.uptime_ms)] };
  }));
  at("no-streams").hidden = streams.length > 0;
}

function showRecordings(recordings) {
  const open = (page, take, there, text) => (there
    ? { href: `${page}?stream=${encodeURIComponent(pathOf(take))}`, text } : "–");
  fill(at("recordings"), recordings.slice(0, 200).map((take) => {
    const name = take.take ? `${take.key}, taken ${takeText(take.take)}` : take.key;
    return { id: pathOf(take), cells: [name, new Date(take.modified * 1000).toLocaleString(),
      open("play.html", take, take.hls, "play"),
      open("play_merge.html", take, take.fmp4_merge || take.fmp4_separate, "play"),
      open("mp4.html", take, take.mp4 != null, bytesText(take.mp4 ?? 0)),
      open("video.html", take, take.flv != null, bytesText(take.flv ?? 0))] };
  }));
  at("no-recordings").hidden = recordings.length > 0;
}

function found(server, library) {
  const { role, version, roles = [], streams = [], upstreams = [] } = server;
  at("server").classList.remove("bad");
  setText(at("server"), `${role ?? "server"} ${version ?? ""}`);
  showRoles(roles);
  showStreams(streams);
  at("upstreams-box").hidden = upstreams.length === 0;
  fill(at("upstreams"), upstreams.map(({ url, up }) => ({ id: url, cells: [url, up ? "answers" : "does not answer"] })));
  showRecordings(library.recordings ?? []);
}

follow(["/api/v1/streams", "/api/v1/recordings"], found, (why) => {
  at("server").classList.add("bad");
  setText(at("server"), why);
});
