// The live player: a list of streams on one side, mpegts.js over HTTP-FLV or WS-FLV on the other.

const REFRESH_MS = 2000;
const READOUT_MS = 500;
const START_TIMEOUT_MS = 12000;
/** Farther than this behind the newest buffered frame, playback jumps … */
const BEHIND_MAX_S = 4;
/** … to this far behind it. */
const BEHIND_GOAL_S = 0.8;
const RETRY_MS = [1000, 2000, 4000, 8000];
const KEY = /^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)+$/;

const at = (id) => document.getElementById(id);
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

// ---- what the server says -------------------------------------------------------------------------------

async function refresh() {
  try {
    const answer = await fetch("/api/v1/streams", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    state.server = await answer.json();
    showServer();
  } catch (error) {
    const why = error.name === "TimeoutError" ? "no answer within 5 s" : error.message;
    at("server").textContent = `server not reachable (${why}); trying again. Is it running?`;
    at("server").classList.add("bad");
  }
  setTimeout(refresh, document.hidden ? 5 * REFRESH_MS : REFRESH_MS);
}

function showServer() {
  const { role, version, ports, streams = [] } = state.server;
  at("server").classList.remove("bad");
  at("server").textContent = `${role ?? "server"} ${version ?? ""} · ${count(streams.length, "stream")}`;
  at("gateway-box").hidden = !ports?.gateway;
  showStreams(streams);
  at("howto").hidden = streams.some((stream) => stream.live !== false);
  showHowTo(ports ?? {});
  if (!state.key && streams.length > 0) choose(streams[0].key);
}

function showStreams(streams) {
  const list = at("streams");
  const known = new Map([...list.children].map((item) => [item.dataset.key, item]));
  for (const stream of streams) {
    const item = known.get(stream.key) ?? newStreamItem(stream.key);
    known.delete(stream.key);
    const [button] = item.children;
    const [dot, , facts] = button.children;
    dot.classList.toggle("on", stream.live !== false);
    setText(facts, describe(stream));
    button.setAttribute("aria-current", String(stream.key === state.key));
    if (!item.isConnected) list.append(item);
  }
  for (const gone of known.values()) gone.remove();
}

function newStreamItem(key) {
  const item = document.createElement("li");
  item.dataset.key = key;
  const button = document.createElement("button");
  button.type = "button";
  const dot = document.createElement("span");
  dot.className = "dot";
  const name = document.createElement("b");
  name.textContent = key;
  button.append(dot, name, document.createElement("small"));
  button.addEventListener("click", () => choose(key));
  item.append(button);
  return item;
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
  for (const item of at("streams").children) {
    item.firstChild.setAttribute("aria-current", String(item.dataset.key === state.key));
  }
  state.retry = 0;
  start();
}

function start() {
  stop();
  if (!state.key) return;
  if (!KEY.test(state.key)) {
    notice("This is not a stream name.", "Use app/name, for example live/demo: letters, digits, “.”, “_”, “-”.");
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
  player.on(mpegts.Events.ERROR, (kind, detail, info) => fail(player, kind, detail, info));
  player.on(mpegts.Events.LOADING_COMPLETE, () => fail(player, "end"));
  player.on(mpegts.Events.STATISTICS_INFO, (info) => { state.rate = info.speed * 8192; });
  player.attachMediaElement(video);
  player.load();
  play();
  state.timer = setTimeout(() => {
    notice("No picture yet.", `${url} is open but sends nothing to decode. Is ${state.key} being published?`);
  }, START_TIMEOUT_MS);
}

function play() {
  video.play()?.catch((error) => {
    if (error.name === "NotAllowedError") notice("The browser wants a click first.", "Press Play.");
  });
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

/** Shows a message over the picture; without arguments, takes it away. */
function notice(what, todo) {
  const box = at("notice");
  box.hidden = !what;
  box.replaceChildren();
  if (!what) return;
  const strong = document.createElement("strong");
  strong.textContent = what;
  box.append(strong, todo ?? "");
}

/** Seconds between what is shown and the newest frame that has arrived; null while nothing has. */
function behind() {
  const ranges = video.buffered;
  return ranges.length > 0 ? ranges.end(ranges.length - 1) - video.currentTime : null;
}

function watch() {
  const late = behind();
  const quality = video.getVideoPlaybackQuality?.();
  setText(at("latency"), late == null ? "–" : `${late.toFixed(2)} s`);
  setText(at("dropped"), quality ? `${quality.droppedVideoFrames} of ${quality.totalVideoFrames}` : "–");
  setText(at("speed"), state.rate == null ? "–" : rateText(state.rate));
  if (!state.player || late == null) return;
  const inBuffer = video.currentTime >= video.buffered.start(video.buffered.length - 1);
  if (!video.paused && (late > BEHIND_MAX_S || !inBuffer)) {
    video.currentTime = video.buffered.end(video.buffered.length - 1) - BEHIND_GOAL_S;
    state.jumps += 1;
    setText(at("jumps"), String(state.jumps));
  }
}

// ---- small things ---------------------------------------------------------------------------------------

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function count(n, noun) {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}

function rateText(bits) {
  return bits >= 1e6 ? `${(bits / 1e6).toFixed(2)} Mbit/s` : `${Math.round(bits / 1e3)} kbit/s`;
}

function durationText(ms) {
  const total = Math.floor(ms / 1000);
  const parts = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  return parts.map((part) => String(part).padStart(2, "0")).join(":");
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

if (mpegtsLoaded()) mpegts.LoggingControl.enableAll = false;
at("key").value = state.key;
showMute();
setInterval(watch, READOUT_MS);
refresh();
if (state.key) start();

function mpegtsLoaded() {
  if (window.mpegts) return true;
  notice("The player script is missing.", "Reload the page; if that does not help, check /vendor/mpegts.js.");
  return false;
}
