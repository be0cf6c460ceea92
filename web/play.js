// HLS: the live playlist while the stream is recorded, and the replay afterwards. hls.js where it runs,
// otherwise the browser's own player.

import { at, notice, play, setText } from "./lib/dom.js";
import { playerFrame } from "./lib/frame.js";
import { run } from "./lib/replay.js";

const RETRY_MS = 4000;

playerFrame({
  noun: "Stream",
  title: "HLS, live and replay",
  nothing: "Nothing is recorded as HLS. A stream that is published while the server packages or records HLS appears " +
    "here; its first segment takes some seconds.",
  readout: [["kind", "Mode"]],
});
const video = at("video");
let hls = null;
let timer = 0;
let recoveries = 0;

const address = (path) => `/hls/${path}/index.m3u8`;

function start(path) {
  const url = address(path);
  recoveries = 0;
  setText(at("state"), "opening");
  if (!window.Hls?.isSupported()) {
    if (!video.canPlayType("application/vnd.apple.mpegurl")) {
      notice("This browser plays no HLS.", "Use a current Chrome, Edge, Firefox or Safari.");
      return;
    }
    video.src = url;
    play(video);
    return;
  }
  const player = new Hls({ liveSyncDurationCount: 2, backBufferLength: 60, enableWorker: true });
  hls = player;
  player.on(Hls.Events.ERROR, (_, data) => {
    if (player === hls && data.fatal) fail(path, data);
  });
  let newest = null;
  player.on(Hls.Events.LEVEL_LOADED, (_, { details }) => {
    if (player !== hls) return;
    if (details.live) page.watchesLive();
    setText(at("kind"), details.live ? "live" : newest === null ? "replay" : "ended");
    // None of the earlier segments is left: it is another take, whose time starts again.
    if (newest !== null && details.startSN > newest) setTimeout(() => player === hls && page.again());
    newest = details.endSN;
  });
  player.loadSource(url);
  player.attachMedia(video);
  play(video);
}

function stop() {
  clearTimeout(timer);
  hls?.destroy();
  hls = null;
  video.removeAttribute("src");
  video.load();
  setText(at("kind"), "–");
  setText(at("state"), "idle");
}

function fail(path, data) {
  if (data.type === Hls.ErrorTypes.MEDIA_ERROR && recoveries < 3) {
    recoveries += 1;
    hls.recoverMediaError();
    return;
  }
  const [what, todo] = explain(path, data);
  notice(what, `${todo} Trying again in ${RETRY_MS / 1000} s.`);
  setText(at("state"), "waiting");
  clearTimeout(timer);
  timer = setTimeout(page.again, RETRY_MS);
}

function explain(path, data) {
  if (data.response?.code === 404) {
    return page.isLive(path)
      ? [`${path} is live, but has no HLS yet.`,
        "The first segment takes some seconds; none comes without --record hls or --packaging hls."]
      : [`There is no HLS of ${path}.`, "Pick one from the list, or publish it while the server records HLS."];
  }
  if (data.type === Hls.ErrorTypes.NETWORK_ERROR) {
    return ["The server does not answer.", "Check that it runs and that its port is open."];
  }
  return ["The stream could not be decoded.", `${data.details}. HLS here is H.264 or HEVC with AAC or MP3.`];
}

video.addEventListener("error", () => {
  if (!hls && video.error && video.getAttribute("src")) {
    notice("The browser could not play this.", video.error.message || "Is the stream recorded as HLS?");
  }
});

const page = run({ has: (take) => take.hls, format: "hls", facts: () => "", start, stop, address });
