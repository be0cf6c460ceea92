// The running roles, their traffic and the recordings. The page only reads. On the admin listener it has
// additional parts, which only that listener serves.

import { at, bytesText, durationText, rateText, setText } from "./lib/dom.js";
import { header, leadTo } from "./lib/frame.js";
import { follow, pathOf, takeText } from "./lib/server.js";
import { POINTS, fill } from "./lib/table.js";

const history = new Map(); // id -> values
let last = null; // { at, roles } of the last answer
let operator = null; // the additional parts on the admin listener
let base = ""; // the address of the other pages; null: not available
let settled = false; // it is known which listener serves this page

/** Stores a value; returns all stored values of that line. */
function remember(id, value) {
  const values = history.get(id) ?? [];
  values.push(value);
  if (values.length > POINTS) values.shift();
  history.set(id, values);
  return values;
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
    const page = `${base}index.html?stream=${encodeURIComponent(stream.key)}`;
    const watch = base === null ? stream.key : { href: page, text: stream.key };
    const more = operator ? [operator.publisherCell(stream)] : [];
    return { id: stream.key, cells: [watch, stream.live ? "live" : "waits for its publisher", stream.viewers, size,
      [stream.video, stream.audio].filter(Boolean).join(" + ") || "–", rateText(stream.bitrate), { line },
      durationText(stream.uptime_ms), ...more] };
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

/** Says how recording is doing; `recording` is missing where nothing is recorded. */
function showRecorder(recording) {
  const line = at("recording");
  line.hidden = !recording;
  if (!recording) return;
  const { under_way: all, failing, stalled, disk_full: full } = recording;
  const parts = [`Recordings: ${all} under way`];
  if (full) parts.push("the disk has too little free space: nothing is recorded");
  if (failing) parts.push(`${failing} failing: the log says why`);
  if (stalled) parts.push(`${stalled} waiting for a slow disk`);
  line.classList.toggle("bad", full || failing > 0 || stalled > 0);
  setText(line, parts.join("; "));
}

function found(server) {
  const { role, version, roles = [], streams = [], upstreams = [] } = server;
  at("server").classList.remove("bad");
  setText(at("server"), `${role ?? "server"} ${version ?? ""}`);
  if (!settled) settle(server);
  showRoles(roles);
  showStreams(streams);
  showRecorder(server.recording);
  at("upstreams-box").hidden = upstreams.length === 0;
  fill(at("upstreams"), upstreams.map(({ url, up }) => ({ id: url, cells: [url, up ? "answers" : "does not answer"] })));
}

/** The admin listener has viewers and no other pages; the public page has recordings. */
async function settle({ operator: access, ports }) {
  settled = true;
  if (!access) {
    at("recordings-box").hidden = false;
    follow(["/api/v1/recordings"], (library) => showRecordings(library.recordings ?? []), lost);
    return;
  }
  base = ports?.web ? `${location.protocol}//${location.hostname}:${ports.web}/` : null;
  leadTo(base);
  const viewers = await import("./operator/viewers.js");
  viewers.start(access);
  operator = viewers;
}

function lost(why) {
  at("server").classList.add("bad");
  setText(at("server"), why);
}

header("status.html");
follow(["/api/v1/streams"], found, lost);
