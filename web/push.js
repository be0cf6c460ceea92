// Going live from the browser: camera, screen or a file, as FLV over a WebSocket.

import { at, bytesText, create, durationText, notice, rateText, setText } from "./lib/dom.js";
import { header } from "./lib/frame.js";
import { KEY, KEY_HELP, follow } from "./lib/server.js";
import { Capture, encoders, open as openCapture } from "./push/capture.js";
import { FileError, FilePush, open as openFile } from "./push/file.js";
import { PushLink } from "./push/link.js";

const READOUT_MS = 500;
const AUDIO_BITRATE = 128_000;

header();
const form = at("controls");
const video = at("video");
const query = new URLSearchParams(location.search);
/** Says that a connection that comes later is still this page: the server lets it take over at once. */
const token = crypto.getRandomValues(new Uint32Array(4)).join("-");

let session = null; // { link, source, frames, at }
let known = { video: [], audio: [] };

// ---- what there is --------------------------------------------------------------------------------------

const kind = () => form.elements.kind.value;

function lacks(text) {
  const found = [...at("lacks").children].some((item) => item.textContent === text);
  if (!found) at("lacks").append(create("li", "", text));
}

function offer(select, choices) {
  select.replaceChildren(...choices.map(({ codec, name }) => {
    const option = create("option", "", name);
    option.value = codec;
    return option;
  }));
}

async function findOut() {
  if (!window.isSecureContext) {
    lacks("Camera and screen need a page that came by https or from localhost: this one did not. " +
      "A file works, and so does ffmpeg or OBS.");
  } else if (!window.VideoEncoder) {
    lacks("This browser has no WebCodecs, which encode camera and screen. Use a current Chrome, Edge, Safari or " +
      "Firefox on a desktop. A file works.");
  }
  known = await encoders();
  offer(at("video-codec"), known.video);
  offer(at("audio-codec"), known.audio);
  const canCapture = window.isSecureContext && known.video.length > 0 && navigator.mediaDevices?.getUserMedia;
  if (!canCapture) {
    form.elements.kind.value = "file";
    form.querySelectorAll("[value=camera], [value=screen]").forEach((input) => { input.disabled = true; });
  } else if (!navigator.mediaDevices.getDisplayMedia) {
    form.querySelector("[value=screen]").disabled = true;
    lacks("This browser cannot capture the screen. Desktop browsers can.");
  }
  if (known.video.length > 0 && known.video[0].codec !== "avc") {
    lacks(`This browser has no H.264 encoder; ${known.video[0].name} is sent instead. The live player here shows ` +
      "it; HLS and many other players do not. Chrome and Edge have one.");
  }
  if (known.audio[0] && !known.audio[0].native) {
    lacks("This browser has no AAC encoder of its own: the page brings one, which costs some CPU. Opus costs less, " +
      "and the live player plays it, but HLS does not.");
  }
  showKind();
  if (canCapture) await listDevices();
}

async function listDevices() {
  const devices = await navigator.mediaDevices.enumerateDevices().catch(() => []);
  for (const [id, wanted] of [["camera", "videoinput"], ["microphone", "audioinput"]]) {
    const select = at(id);
    const before = select.value;
    select.querySelectorAll("[data-device]").forEach((option) => option.remove());
    for (const device of devices.filter((one) => one.kind === wanted && one.deviceId && one.label)) {
      const option = create("option", "", device.label);
      option.value = device.deviceId;
      option.dataset.device = "";
      select.append(option);
    }
    if ([...select.options].some((option) => option.value === before)) select.value = before;
  }
}

function showKind() {
  at("file-box").hidden = kind() !== "file";
  at("capture-box").hidden = kind() === "file";
  at("camera-box").hidden = kind() !== "camera";
}

function showServer({ role, version, ports }) {
  at("server").classList.remove("bad");
  setText(at("server"), `${role ?? "server"} ${version ?? ""}`);
  if (!at("target").value && ports?.flv) {
    // Behind a proxy that speaks TLS the page's own address is the only one that can work.
    at("target").value = location.protocol === "https:"
      ? `wss://${location.host}` : `ws://${location.hostname}:${ports.flv}`;
  }
  if (!ports?.flv && !at("target").value) lacks("This server takes no publishers: name one that does under “Server”.");
}

function showWatch() {
  at("watch").href = `index.html?stream=${encodeURIComponent(at("key").value.trim())}`;
}

// ---- going live -----------------------------------------------------------------------------------------

function setting() {
  const number = (id) => Number(at(id).value);
  const [width, height] = at("size").value.split("x").map(Number);
  const audio = known.audio.find(({ codec }) => codec === at("audio-codec").value) ?? known.audio[0];
  const video = { codec: at("video-codec").value, bitrate: number("bitrate") * 1000, gop: number("gop"),
    fps: number("rate"), width, height };
  return { video, audio: { ...audio, bitrate: AUDIO_BITRATE } };
}

/** What is to be sent: `{ tracks, start(sink), stop() }`. */
async function source() {
  if (kind() === "file") {
    const [file] = at("file").files;
    if (!file) throw new FileError("Choose a file first.");
    const opened = await openFile(file);
    at("lacks").replaceChildren();
    opened.notes.forEach(lacks);
    let push = null;
    return {
      tracks: opened.tracks,
      start: (sink) => {
        push = new FilePush(opened, () => at("loop").checked, sink);
        preview(file);
        push.run().then(() => finish("The file is over."), (error) => finish("The file could not be sent.", error));
      },
      stop: () => push?.stop(),
    };
  }
  const choice = setting();
  const { width, height, fps } = choice.video;
  const devices = { camera: at("camera").value, microphone: at("microphone").value };
  const stream = await openCapture({ kind: kind(), width, height, fps, ...devices });
  listDevices();
  video.removeAttribute("src");
  video.srcObject = stream;
  let capture = null;
  return {
    tracks: { video: stream.getVideoTracks().length > 0, audio: stream.getAudioTracks().length > 0 },
    start: (sink) => {
      capture = new Capture(stream, choice, sink);
      capture.start({
        failed: (error) => finish("The encoder gave up. Try a smaller picture or another codec.", error),
        ended: () => finish("The capture was ended."),
      }).catch((error) => finish("The encoder does not start. Try a smaller picture or another codec.", error));
    },
    stop: () => (capture ? capture.stop() : stream.getTracks().forEach((track) => track.stop())),
  };
}

function preview(file) {
  video.srcObject = null;
  if (/\.flv$/i.test(file.name)) {
    video.removeAttribute("src");
    notice("A file has no preview here if it is FLV.", "Press “Watch it”.");
    return;
  }
  video.src = URL.createObjectURL(file);
  video.onloadeddata = () => URL.revokeObjectURL(video.src);
  video.loop = at("loop").checked;
}

async function goLive() {
  const [path, own] = at("key").value.trim().split("?");
  const name = path.replace(/^\/+|\.flv$/g, "");
  if (!KEY.test(name)) {
    notice("This is not a stream name.", KEY_HELP);
    return;
  }
  const target = at("target").value.trim().replace(/\/+$/, "").replace(/^http/, "ws");
  if (!/^wss?:\/\/[^/]+/.test(target)) {
    notice("This is no address to push to.", "It looks like ws://HOST:8501, or wss:// where a proxy speaks TLS.");
    return;
  }
  if (location.protocol === "https:" && target.startsWith("ws:")) {
    notice("A page that came by https may only push to wss://.", "Put a proxy that speaks TLS before this page's port.");
    return;
  }
  busy(true);
  notice();
  setText(at("state"), "starting");
  try {
    const found = await source();
    const url = `${target}/${name}?${own ?? `token=${token}`}`;
    const link = new PushLink(url, found.tracks, { state: showState });
    session = { link, source: found, begun: false, frames: 0, at: performance.now() };
  } catch (error) {
    busy(false);
    setText(at("state"), "idle");
    notice(...explain(error));
  }
}

function explain(error) {
  if (error instanceof FileError) return [error.message];
  switch (error.name) {
    case "NotAllowedError":
      return ["The browser was not allowed to capture.", "Allow it in the address bar, then press “Go live” again."];
    case "NotFoundError":
      return ["There is no such device.", "Plug a camera or microphone in, or choose “none” as the microphone."];
    case "NotReadableError":
      return ["The device is in use.", "Close the other program that has the camera or microphone."];
    default:
      return ["This did not work.", error.message];
  }
}

function showState(state, why) {
  const words = { connecting: "connecting", live: "on air", lost: "connecting again", refused: "refused" };
  setText(at("state"), words[state]);
  if (state === "live") {
    notice();
    begin();
  }
  if (state === "lost") {
    notice("The connection to the server is lost.", `${why} Trying again.`);
  }
  if (state === "refused") finish("The server refuses this.", new Error(why || "It gave no reason."));
}

/** Only when the server is there: the first picture that is encoded, or read from a file, is the keyframe it needs. */
function begin() {
  if (!session || session.begun) return;
  session.begun = true;
  const { link, source: found } = session;
  found.start((tag) => link.send(tag));
}

/** Ends what is being sent; `why` and `error` are shown. */
function finish(why, error) {
  if (!session) return;
  const { link, source: sent } = session;
  session = null;
  sent.stop();
  link.close();
  if (video.srcObject) video.srcObject = null;
  else video.removeAttribute("src");
  busy(false);
  setText(at("state"), "ended");
  if (error) console.warn(why, error);
  notice(why, error?.message ?? "");
}

function busy(sending) {
  at("go").disabled = sending;
  at("stop").disabled = !sending;
  for (const element of form.querySelectorAll("input:not(#loop), select")) element.disabled = sending;
  if (!sending && known.video.length === 0) {
    form.querySelectorAll("[value=camera], [value=screen]").forEach((input) => { input.disabled = true; });
  }
}

function readOut() {
  if (!session) return;
  const { stats, rate, unsent } = session.link;
  const now = performance.now();
  const fps = ((stats.frames - session.frames) * 1000) / (now - session.at);
  Object.assign(session, { frames: stats.frames, at: now });
  setText(at("time"), durationText(stats.time ?? 0));
  setText(at("speed"), rateText(rate));
  setText(at("frames"), `${stats.frames}, ${stats.keyframes} keyframes`);
  setText(at("fps"), fps.toFixed(0));
  setText(at("dropped"), String(stats.dropped));
  setText(at("unsent"), bytesText(unsent));
  setText(at("connects"), String(stats.connects));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  goLive();
});
form.addEventListener("change", (event) => {
  if (event.target.name === "kind") showKind();
  if (event.target === at("key")) showWatch();
});
at("stop").addEventListener("click", () => finish("You are off air."));
addEventListener("beforeunload", (event) => session && event.preventDefault());
at("key").value = query.get("stream") ?? at("key").value;
showKind();
showWatch();
setInterval(readOut, READOUT_MS);
follow(["/api/v1/streams"], showServer, (why) => {
  at("server").classList.add("bad");
  setText(at("server"), why);
});
findOut();
