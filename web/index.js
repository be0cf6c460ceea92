// The live player: a list of streams on one side, mpegts.js over HTTP-FLV or WS-FLV on the other.

import { ahead, at, count, durationText, notice, play, rateText, readOut, setText } from "./lib/dom.js";
import { header } from "./lib/frame.js";
import { markChosen, showList } from "./lib/list.js";
import { KEY, KEY_HELP, follow } from "./lib/server.js";

const READOUT_MS = 500;
const START_TIMEOUT_MS = 12000;
/** If playback is farther than this behind the newest buffered frame, it jumps … */
const BEHIND_MAX_S = 4;
/** … to this far behind it. */
const BEHIND_GOAL_S = 0.8;
const RETRY_MS = [1000, 2000, 4000, 8000];

header();
const video = at("video");
const query = new URLSearchParams(location.search);

const state = {
  server: null, // the last answer of /api/v1/streams
  key: query.get("stream") ?? "",
  player: null,
  retry: 0,
  timer: 0,
  jumps: 0,
  rate: null,
};

// ---- the server's answers -------------------------------------------------------------------------------

function showServer(server) {
  state.server = server;
  const { role, version, ports, streams = [] } = server;
  at("server").classList.remove("bad");
  setText(at("server"), `${role ?? "server"} ${version ?? ""} · ${count(streams.length, "stream")}`);
  at("gateway-box").hidden = !ports?.gateway;
  const items = streams.map((stream) => {
    return { id: stream.key, name: stream.key, facts: describe(stream), live: stream.live !== false };
  });
  showList(at("streams"), items, state.key, (item) => choose(item.id));
  at("howto").hidden = streams.some((stream) => stream.live !== false);
  showHowTo(ports ?? {});
  if (!state.key && streams.length > 0) choose(streams[0].key);
}

function showLost(why) {
  at("server").classList.add("bad");
  setText(at("server"), why);
}

function describe(stream) {
  const facts = [];
  if (stream.live === false) facts.push("waiting for its publisher");
  if (stream.viewers != null) facts.push(count(stream.viewers, "viewer"));
  if (stream.width && stream.height) facts.push(`${stream.width}×${stream.height}`);
  const codecs = [stream.video, stream.audio].filter(Boolean).join(" + ");
  if (codecs) facts.push(codecs);
  if (stream.bitrate != null) facts.push(rateText(stream.bitrate));
  if (stream.uptime_ms != null) facts.push(durationText(stream.uptime_ms));
  return facts.join(" · ");
}

function showHowTo(ports) {
  const host = location.hostname;
  const rtmp = ports.rtmp && ports.rtmp !== 1935 ? `${host}:${ports.rtmp}` : host;
  const key = KEY.test(state.key) ? state.key : "live/demo";
  const cut = key.lastIndexOf("/");
  setText(at("howto-ffmpeg"),
    `ffmpeg -re -stream_loop -1 -i FILE \\\n  -c:v libx264 -g 50 -c:a aac \\\n  -f flv rtmp://${rtmp}/${key}`);
  setText(at("howto-obs"), `Server      rtmp://${rtmp}/${key.slice(0, cut)}\nStream Key  ${key.slice(cut + 1)}`);
  setText(at("elsewhere"), `ffplay -fflags nobuffer ${address(key, false)}\nvlc ${address(key, false)}`);
}

// ---- playing --------------------------------------------------------------------------------------------

function address(key, ws = at("controls").elements.transport.value === "ws") {
  const secure = location.protocol === "https:";
  const gateway = at("gateway").checked && state.server?.ports?.gateway;
  const host = gateway ? `${location.hostname}:${gateway}` : location.host;
  return `${ws ? "ws" : "http"}${secure ? "s" : ""}://${host}/${key}.flv`;
}

function choose(key) {
  state.key = key.trim().replace(/^\/+|\.flv$/g, "");
  at("key").value = state.key;
  const here = new URL(location.href);
  here.searchParams.set("stream", state.key);
  history.replaceState(null, "", here);
  markChosen(at("streams"), state.key);
  state.retry = 0;
  start();
}

function start() {
  stop();
  if (!state.key) return;
  if (!KEY.test(state.key)) {
    notice("This is not a stream name.", KEY_HELP);
    return;
  }
  if (!window.mpegts?.isSupported()) {
    notice("This browser has no Media Source Extensions.",
      `Use a current Chrome, Edge, Firefox or Safari 17, or open ${address(state.key, false)} in VLC.`);
    return;
  }
  const url = address(state.key);
  showHowTo(state.server?.ports ?? {});
  setText(at("state"), "opening");
  const player = mpegts.createPlayer(
    { type: "flv", isLive: true, url, cors: true },
    { enableStashBuffer: false, autoCleanupSourceBuffer: true, lazyLoad: false,
      liveSync: true, liveSyncMaxLatency: 1.6, liveSyncTargetLatency: 0.8, liveSyncPlaybackRate: 1.1 },
  );
  state.player = player;
  // Later, since mpegts.js must not be destroyed inside its own event handlers.
  const failed = (...why) => setTimeout(() => fail(player, ...why));
  player.on(mpegts.Events.ERROR, failed);
  player.on(mpegts.Events.LOADING_COMPLETE, () => failed("end"));
  player.on(mpegts.Events.STATISTICS_INFO, (info) => { state.rate = info.speed * 8192; });
  player.attachMediaElement(video);
  player.load();
  play(video);
  state.timer = setTimeout(() => {
    notice("No picture yet.", `${url} is open but sends nothing to decode. Is ${state.key} being published?`);
  }, START_TIMEOUT_MS);
}

function stop() {
  clearTimeout(state.timer);
  notice();
  state.rate = null;
  const { player } = state;
  state.player = null;
  player?.destroy();
}

function fail(player, kind, detail, info) {
  if (player !== state.player) return;
  stop();
  const wait = RETRY_MS[Math.min(state.retry, RETRY_MS.length - 1)];
  state.retry += 1;
  const [what, todo] = explain(kind, detail, info);
  notice(what, `${todo} Trying again in ${wait / 1000} s.`);
  setText(at("state"), "waiting");
  state.timer = setTimeout(start, wait);
}

function explain(kind, detail, info) {
  const key = state.key;
  if (kind === "end") return [`${key} has ended.`, "It goes on here when its publisher comes back."];
  if (kind === mpegts.ErrorTypes.NETWORK_ERROR) {
    if (info?.code === 404) return [`${key} is not live.`, "Pick a live stream from the list, or publish it."];
    if (info?.code === 503) return ["The server is full.", "Use another gateway, or raise its viewer limit."];
    if (info?.code >= 400) return [`The server refused with ${info.code}.`, info.msg ?? ""];
    return ["The connection was lost.", "Check that the server runs and that its port is open."];
  }
  if (detail === mpegts.ErrorDetails.MEDIA_CODEC_UNSUPPORTED) {
    return ["This browser cannot decode the stream's codecs.", "Publish H.264 with AAC."];
  }
  return ["The stream could not be decoded.", `${detail ?? ""} ${info?.msg ?? ""}`.trim() + "."];
}

function watch() {
  readOut(video);
  setText(at("speed"), state.rate == null ? "–" : rateText(state.rate));
  const late = ahead(video);
  if (!state.player || late == null) return;
  const inBuffer = video.currentTime >= video.buffered.start(video.buffered.length - 1);
  if (!video.paused && (late > BEHIND_MAX_S || !inBuffer)) {
    video.currentTime = video.buffered.end(video.buffered.length - 1) - BEHIND_GOAL_S;
    state.jumps += 1;
    setText(at("jumps"), String(state.jumps));
  }
}

function showMute() {
  at("mute").textContent = video.muted ? "Unmute" : "Mute";
  at("mute").setAttribute("aria-pressed", String(video.muted));
}

at("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  choose(at("key").value);
});
at("controls").addEventListener("change", (event) => {
  if (event.target !== at("key") && state.key) choose(state.key);
});
at("mute").addEventListener("click", () => { video.muted = !video.muted; });
video.addEventListener("volumechange", showMute);
video.addEventListener("playing", () => {
  clearTimeout(state.timer);
  state.retry = 0;
  notice();
  setText(at("state"), "playing");
});
video.addEventListener("waiting", () => state.player && setText(at("state"), "buffering"));
video.addEventListener("pause", () => state.player && setText(at("state"), "paused"));

if (window.mpegts) {
  mpegts.LoggingControl.enableAll = false;
} else {
  notice("The player script is missing.", "Reload the page; if that does not help, check /vendor/mpegts.js.");
}
at("key").value = state.key;
showMute();
setInterval(watch, READOUT_MS);
follow(["/api/v1/streams"], showServer, showLost);
if (state.key) start();
