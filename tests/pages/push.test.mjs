// The page that goes live: a fake camera and files, checked by another page and by ffprobe.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { FlvReader, classify } from "../../web/push/flv.js";
import { Browser, Network, Publisher, Server, api, makeClip, plays, scratch, until } from "./harness.mjs";

let server;
let browser;

before(async () => {
  [server, browser] = await Promise.all([Server.start(), Browser.start()]);
});

after(async () => {
  await browser?.stop();
  await server?.stop();
});

const clean = (page) => assert.deepEqual(page.errors, [], "nothing on the console");

/** Opens the page and fills in its settings. The server's FLV port is another origin than the page's. */
async function ready(key, { kind = "camera", file, through = server.addresses.flv, ...choices } = {}) {
  const page = await browser.page(server.url(`push.html?stream=${key}`), { others: [through] });
  await until(page, "the server's address is filled in", () => document.querySelector("#target").value);
  await until(page, "it knows what the browser encodes", () => document.querySelectorAll("#video-codec option").length > 0);
  await page.check(`[value=${kind}]`, { force: true });
  for (const [id, value] of Object.entries(choices)) await page.selectOption(`#${id}`, value);
  if (file) await page.setInputFiles("#file", file);
  if (through !== server.addresses.flv) await page.fill("#target", `ws://${through}`);
  return page;
}

async function goLive(page) {
  await page.click("#go");
  await until(page, "it is on air", () => document.querySelector("#state").textContent === "on air"
    && Number.parseInt(document.querySelector("#frames").textContent, 10) > 20);
}

/** Another page plays it, and ffprobe reports its format. */
async function isWatched(key, codecs) {
  const viewer = await browser.page(server.url(`index.html?stream=${key}`));
  await plays(viewer, { seconds: 3, frames: 30 });
  clean(viewer);
  await viewer.context().close();
  if (!codecs) return;
  const said = spawnSync("ffprobe", ["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0",
    `http://${server.addresses.flv}/${key}.flv`], { encoding: "utf8" });
  assert.deepEqual(said.stdout.trim().split("\n").sort(), codecs, said.stderr);
}

test("a camera, as H.264 and AAC", async () => {
  const page = await ready("live/camera", { size: "640x360", rate: "25", gop: "1" });
  await goLive(page);
  await isWatched("live/camera", ["aac", "h264"]);
  const { streams } = await api(server, "api/v1/streams", ({ streams }) => streams.some((one) => one.width));
  assert.deepEqual(streams.map(({ key, width, height }) => [key, width, height]), [["live/camera", 640, 360]]);
  assert.equal(await page.textContent("#dropped"), "0");
  await page.click("#stop");
  await until(page, "it is off air", () => document.querySelector("#notice").textContent.includes("off air"));
  await api(server, "api/v1/streams", ({ streams }) => !streams.some((one) => one.live));
  const takes = ({ recordings }) => recordings.some((take) => take.key === "live/camera" && take.mp4 && take.hls);
  await api(server, "api/v1/recordings", takes);
  const replay = await browser.page(server.url("mp4.html?stream=live/camera"));
  await plays(replay, { seconds: 1, frames: 20 });
  clean(replay);
  clean(page);
});

test("a camera over https, pushed and played by wss", async () => {
  const folder = scratch();
  const [cert, key] = ["cert.pem", "key.pem"].map((name) => join(folder, name));
  const made = spawnSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key,
    "-out", cert], { encoding: "utf8" });
  assert.equal(made.status, 0, made.stderr);
  const secure = await Server.start(["--tls-cert", cert, "--tls-key", key]);
  const open = (page) => browser.page(`https://${secure.addresses.web}/${page}`, { ignoreHTTPSErrors: true });
  try {
    const page = await open("push.html?stream=live/secure");
    await until(page, "it knows what the browser encodes", () => document.querySelectorAll("#video-codec option").length > 0);
    assert.equal(await page.inputValue("#target"), `wss://${secure.addresses.web}`);
    await page.check("[value=camera]", { force: true });
    await goLive(page);
    const viewer = await open("index.html?stream=live/secure");
    await plays(viewer, { seconds: 3, frames: 30 });
    clean(viewer);
    clean(page);
    await Promise.all([viewer, page].map((one) => one.context().close()));
  } finally {
    await secure.stop();
  }
});

test("a camera, as AV1 and Opus by enhanced FLV", async () => {
  const page = await ready("live/av1", { size: "640x360", rate: "15", "video-codec": "av1", "audio-codec": "opus" });
  await goLive(page);
  await isWatched("live/av1");
  clean(page);
  await page.context().close();
});

test("the screen", async () => {
  const page = await ready("live/screen", { kind: "screen", size: "640x360", rate: "15", microphone: "none" });
  await goLive(page);
  await isWatched("live/screen");
  clean(page);
  await page.context().close();
});

test("a lost connection is made again, and the stream continues for the viewer", async () => {
  const page = await ready("live/again", { size: "640x360", rate: "15", gop: "1" });
  const sockets = [];
  await page.routeWebSocket(/again/, (socket) => {
    socket.connectToServer();
    sockets.push(socket);
  });
  await goLive(page);
  const viewer = await browser.page(server.url("index.html?stream=live/again"));
  await plays(viewer);
  await sockets[0].close({ code: 3000, reason: "for a test" });
  await until(page, "it is on air again", () => document.querySelector("#connects").textContent === "2"
    && document.querySelector("#state").textContent === "on air");
  await plays(viewer, { seconds: 3, frames: 30 });
  clean(viewer);
  clean(page);
  await Promise.all([viewer.context().close(), page.context().close()]);
});

/** Reads a stream as a viewer until `stop()`, which returns what was received. */
function watch(key) {
  const ended = new AbortController();
  const frames = [];
  const read = (async () => {
    const answer = await fetch(`http://${server.addresses.flv}/${key}.flv`, { signal: ended.signal });
    const reader = new FlvReader();
    for await (const bytes of answer.body) frames.push(...reader.push(bytes).map(classify));
  })().catch((error) => assert.equal(error.name, "AbortError"));
  return {
    stop: async () => {
      ended.abort();
      await read;
      return frames;
    },
  };
}

test("a halted network: frames are dropped until a keyframe, and counted", async (t) => {
  const network = await Network.start(server.addresses.flv);
  t.after(() => network.stop());
  // Noise, which cannot be compressed: the buffers on the way are soon full.
  const noise = ["-vf", "noise=alls=100:allf=t", "-b:v", "16M"];
  const file = makeClip(join(scratch(), "noise.flv"), 6, noise);
  const page = await ready("live/lag", { kind: "file", file, through: network.address });
  await page.check("#loop");
  await goLive(page);
  const viewer = watch("live/lag");
  const number = (id) => page.textContent(`#${id}`).then((text) => Number.parseInt(text, 10));
  assert.equal(await number("dropped"), 0);
  network.stand();
  await until(page, "pictures are left out", () => Number(document.querySelector("#dropped").textContent) > 10);
  assert.match(await page.textContent("#unsent"), /MB$/, "and the statistics show what waits");
  const waits = await number("frames");
  const left = await number("dropped");
  await until(page, "none is sent any more", (before) => Number(document.querySelector("#dropped").textContent)
    > before + 25, left);
  assert.ok(await number("frames") <= waits + 1, "while nothing moves");
  network.go();
  await until(page, "the network has caught up, and pictures go out", (before) => {
    const frames = Number.parseInt(document.querySelector("#frames").textContent, 10);
    return document.querySelector("#unsent").textContent.endsWith("kB") && frames > before + 50;
  }, waits);
  const dropped = await number("dropped");
  await new Promise((resolve) => setTimeout(resolve, 2000));
  assert.equal(await number("dropped"), dropped, "no more are left out");
  assert.equal(await number("connects"), 1, "it is still the same connection");

  const frames = (await viewer.stop()).filter(({ kind, config }) => kind === "video" && !config);
  const jumps = frames.filter(({ time }, index) => index > 0 && time - frames[index - 1].time > 200);
  // A slow machine may fill the buffers a second time while they drain.
  assert.ok(jumps.length > 0, "there is a gap");
  assert.ok(jumps.every(({ key }) => key), "with a keyframe after it");
  clean(page);
  await page.context().close();
});

test("a page that an operator has kicked stays off air", async () => {
  const page = await ready("live/kicked", { size: "640x360", rate: "15" });
  await goLive(page);
  const answer = await fetch(server.url("api/v1/streams/live/kicked", server.addresses.admin), { method: "DELETE" });
  assert.equal(answer.status, 204);
  await until(page, "it says so", () => /operator has ended it/.test(document.querySelector("#notice").textContent));
  await new Promise((resolve) => setTimeout(resolve, 1500));
  assert.equal(await page.textContent("#state"), "ended");
  clean(page);
  await page.context().close();
});

test("files are sent without encoding", async (t) => {
  const folder = scratch();
  const frames = ["-tune", "film", "-preset", "fast", "-bf", "3"];
  for (const [name, codecs, options, video] of [
    ["clip.mp4", ["aac", "h264"], frames],
    ["clip.flv", ["aac", "h264"], frames],
    ["clip.mkv", ["h264", "mp3"], ["-c:a", "libmp3lame"]],
  ]) {
    await t.test(name, async () => {
      const file = makeClip(join(folder, name), 6, options, video);
      const key = `live/file-${name.replace(".", "-")}`;
      const page = await ready(key, { kind: "file", file });
      await page.check("#loop");
      await goLive(page);
      await isWatched(key, codecs);
      await page.uncheck("#loop");
      await until(page, "the file ends", () => document.querySelector("#notice").textContent.includes("over"));
      assert.equal(await page.textContent("#dropped"), "0");
      clean(page);
      await page.context().close();
    });
  }
});

test("files that cannot be sent are reported", async () => {
  const publisher = new Publisher(server, "live/taken");
  await api(server, "api/v1/streams", ({ streams }) => streams.some((one) => one.key === "live/taken" && one.live));
  const page = await ready("live/taken", { kind: "file" });
  const says = (words) => until(page, `it says ${words}`,
    (pattern) => new RegExp(pattern).test(document.querySelector("#notice").textContent), words);
  await page.click("#go");
  await says("Choose a file");
  await page.setInputFiles("#file", { name: "a.mp4", mimeType: "video/mp4", buffer: Buffer.from("no film at all") });
  await page.click("#go");
  await says("neither MP4.*ffmpeg");
  await page.setInputFiles("#file", makeClip(join(scratch(), "clip.flv"), 2));
  await page.click("#go");
  await says("refuses.*taken");
  await page.fill("#key", "nothing");
  await page.click("#go");
  await says("not a stream name");
  await publisher.stop();
  clean(page);
});
