// What the pages that play recordings have in common: the list, the address line, the readout.

import { at, bytesText, count, notice, readOut, setText } from "./dom.js";
import { markChosen, showList } from "./list.js";
import { isGrowing } from "./segments.js";
import { KEY, KEY_HELP, follow, pathOf, takeText } from "./server.js";

const READOUT_MS = 500;
/** `app/name`, and the take after an `@`. */
const PATH = /^([^@]+)(?:@([A-Za-z0-9-]+))?$/;

/**
 * Runs a page that plays recordings.
 *
 * `has(take)`: whether a take has something for this page. `format`: the one in which it plays live streams, recorded
 * or not; none: it plays recordings only. `facts(take)`: the text for the list. `start(path, take)`: plays; `path` is
 * `app/name` or `app/name@take`, `take` is the server's entry for it, if there is one. `stop()`: undoes that.
 * `address(path)`: the URL for other players.
 *
 * Returns `isLive(key)`; `listed`, a promise that the server's lists have come or could not be had; `again()`, which
 * starts over; and `watchesLive()`, by which the page declares that it plays a live stream: it then continues with the
 * next take.
 */
export function run({ has, format, facts, start, stop, address }) {
  const video = at("video");
  const list = at("recordings");
  const query = new URLSearchParams(location.search);
  let path = query.get("stream") ?? "";
  let takes = [];
  let live = new Set();
  let watchesLive = false; // the stream was live when playback began
  let knowsStreams = true; // a file gateway knows files only
  let tellListed;
  const listed = new Promise((resolve) => { tellListed = resolve; });

  function choose(wanted) {
    stop();
    watchesLive = false;
    path = wanted.trim().replace(/^\/+|\/+$/g, "");
    at("key").value = path;
    const here = new URL(location.href);
    here.searchParams.set("stream", path);
    history.replaceState(null, "", here);
    markChosen(list, path);
    setText(at("elsewhere"), "–");
    if (!path) return;
    const [, key, take] = PATH.exec(path) ?? [];
    if (!KEY.test(key ?? "")) {
      notice("This is not a stream name.", KEY_HELP);
      return;
    }
    notice();
    const url = new URL(address(path), location.href).href;
    setText(at("elsewhere"), `ffplay ${url}\nvlc ${url}`);
    if (at("download")) at("download").href = url;
    start(path, takes.find((one) => pathOf(one) === path) ?? { key, take }, live.has(path));
  }

  function found(server, library) {
    const before = live;
    knowsStreams = server.role !== "file-gateway";
    live = new Set((server.streams ?? []).filter((stream) => stream.live).map((stream) => stream.key));
    tellListed();
    takes = (library.recordings ?? []).filter(has);
    at("server").classList.remove("bad");
    setText(at("server"), `${server.role ?? "server"} ${server.version ?? ""} · ${count(takes.length, "recording")}`);
    if (server.packaging?.includes(format)) {
      const recorded = new Set(takes.map(pathOf));
      takes.unshift(...[...live].filter((key) => !recorded.has(key)).map((key) => ({ key })));
    }
    const items = takes.map((take) => {
      const id = pathOf(take);
      const when = take.take ? takeText(take.take) : new Date(take.modified * 1000).toLocaleString();
      const words = live.has(id) ? ["live now", facts(take)] : [when, facts(take)];
      return { id, name: take.key, facts: words.filter(Boolean).join(" · "), live: live.has(id) };
    });
    showList(list, items, path, (item) => choose(item.id));
    at("nothing").hidden = items.length > 0;
    at("partly").hidden = library.complete !== false;
    if (!path && items.length > 0) choose(items[0].id);
    if (watchesLive) goOn();
    else if (live.has(path) && !before.has(path) && video.ended) notice(`${path} is live again.`, "Press Play.");
  }

  /** A live stream whose publisher has left: shows what the page waits for, and continues with the next take. */
  async function goOn() {
    if (!video.ended) {
      const stands = !video.paused && video.readyState < HTMLMediaElement.HAVE_FUTURE_DATA;
      const lacks = knowsStreams && !live.has(path);
      if (stands && lacks) notice(`${path} has lost its publisher.`, "It goes on here when that comes back.");
      return;
    }
    const [what, next] = live.has(path)
      ? ["is live again", "with its first segment, which takes some seconds"]
      : ["has ended", "when its publisher comes back"];
    notice(`${path} ${what}.`, `It goes on here ${next}.`);
    if (knowsStreams && !(live.has(path) && takes.some((take) => pathOf(take) === path))) return;
    const wanted = path;
    const growing = await isGrowing(address(path)).catch(() => false);
    if (growing && video.ended && path === wanted) choose(path);
  }

  function lost(why) {
    tellListed();
    at("server").classList.add("bad");
    setText(at("server"), why);
  }

  at("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    choose(at("key").value);
  });
  for (const [event, state] of [["playing", "playing"], ["waiting", "buffering"], ["pause", "paused"],
    ["seeking", "seeking"], ["ended", "ended"]]) {
    video.addEventListener(event, () => setText(at("state"), state));
  }
  video.addEventListener("playing", () => notice());
  video.addEventListener("ended", () => watchesLive && goOn());
  setInterval(() => readOut(video), READOUT_MS);
  at("key").value = path;
  follow(["/api/v1/streams", "/api/v1/recordings"], found, lost);
  if (path) choose(path);
  return {
    isLive: (key) => live.has(key),
    listed,
    again: () => choose(path),
    watchesLive: () => { watchesLive = true; },
  };
}

/** Why a file is not available: asks the server, since players only report that it failed. */
export async function explainMissing(url, words) {
  try {
    const answer = await fetch(url, { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (answer.status === 404) return words.missing;
    if (!answer.ok) return [`The server answered ${answer.status}.`, "Try again; if it stays, look at its log."];
    return words.broken;
  } catch {
    return ["The server does not answer.", "Check that it runs and that its port is open."];
  }
}

export const sizeText = (bytes) => (bytes == null ? "" : bytesText(bytes));
