// A server of the project, publishers and a browser for the tests of the pages.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const PROGRAM = process.env.URINGCAST ?? new URL("../../target/debug/uringcast", import.meta.url).pathname;
const BROWSER = process.env.CHROMIUM ?? "/usr/bin/chromium";
const PATIENCE_MS = 30_000;

export function scratch() {
  return mkdtempSync(join(tmpdir(), "uringcast-pages-"));
}

const ended = (child) => child.exitCode !== null || child.signalCode !== null;

async function stop(child, signal) {
  if (ended(child)) return;
  const exit = new Promise((resolve) => child.once("exit", resolve));
  child.kill(signal);
  const timer = setTimeout(() => child.kill("SIGKILL"), PATIENCE_MS);
  await exit;
  clearTimeout(timer);
}

/** Waits that would only make the tests longer. */
const SHORT = {
  URINGCAST_RECORDING__SEGMENT: "1s",
  URINGCAST_ORIGIN__WAIT: "1s",
  URINGCAST_ORIGIN__GAP: "4s",
  URINGCAST_LOOPS: "1",
};

const ANY = "127.0.0.1:0";

/** A server as a separate process. */
export class Server {
  /**
   * An origin, with all kinds of recordings and short segments; `more`: additional environment variables, `data`: the
   * folder of the recordings.
   */
  static start(args = [], more = {}, data = scratch()) {
    const all = ["origin", "--rtmp", ANY, "--flv", ANY, "--web", ANY, "--admin", ANY, "--data", data,
      "--record", "flv,hls,fmp4", ...args];
    return Server.run(all, more, data);
  }

  /** An origin that records nothing and packages everything. */
  static packager() {
    const data = scratch();
    const all = ["origin", "--rtmp", ANY, "--flv", ANY, "--web", ANY, "--admin", ANY, "--data", data,
      "--record", "none", "--packaging", "hls,fmp4"];
    return Server.run(all, {}, data);
  }

  /** A file gateway without files of its own. */
  static fileGateway(origin) {
    const data = scratch();
    const [root, cache] = ["root", "cache"].map((name) => join(data, name));
    mkdirSync(root);
    const all = ["file-gateway", "--listen", ANY, "--admin", ANY, "--root", root, "--cache", cache,
      "--upstream", `http://${origin.addresses.web}`];
    return Server.run(all, {}, data);
  }

  static async run(all, more, data) {
    const env = { ...process.env, ...SHORT, ...more };
    const child = spawn(PROGRAM, all, { env, stdio: ["ignore", "ignore", "pipe"] });
    const server = new Server();
    Object.assign(server, { child, data, log: [] });
    server.addresses = await new Promise((resolve, reject) => {
      createInterface({ input: child.stderr }).on("line", (line) => {
        server.log.push(line);
        const ready = /\bready role=(.*)$/.exec(line);
        if (ready) resolve(Object.fromEntries(ready[1].split(" ").map((pair) => pair.split("="))));
      });
      child.once("error", reject);
      child.once("exit", () => reject(new Error(`the server ended:\n${server.log.join("\n")}`)));
    });
    return server;
  }

  url(page, address = this.addresses.web) {
    return `http://${address}/${page}`;
  }

  rtmp(key) {
    return `rtmp://${this.addresses.rtmp}/${key}`;
  }

  async stop() {
    await stop(this.child, "SIGINT");
    rmSync(this.data, { recursive: true, force: true });
  }
}

const PICTURE = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"];
const SOUND = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100"];
const H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"];
const CODECS = ["-g", "25", "-b:v", "300k", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "48k"];

/** ffmpeg, publishing a test picture by RTMP until it is stopped. */
export class Publisher {
  constructor(server, key) {
    const args = ["-hide_banner", "-loglevel", "error", "-re", ...PICTURE, "-re", ...SOUND, ...H264,
      ...CODECS, "-f", "flv", server.rtmp(key)];
    this.child = spawn("ffmpeg", args, { stdio: ["ignore", "ignore", "inherit"] });
  }

  stop() {
    return stop(this.child, "SIGTERM");
  }
}

/** A file of some seconds of the test picture, made by ffmpeg; `video`: its encoder. */
export function makeClip(file, seconds, options = [], video = H264) {
  const args = ["-hide_banner", "-loglevel", "error", "-y", ...PICTURE, ...SOUND, ...video, ...CODECS, ...options,
    "-t", String(seconds), file];
  const made = spawnSync("ffmpeg", args, { stdio: "inherit" });
  assert.equal(made.status, 0, "ffmpeg makes a clip");
  return file;
}

/** A proxy to `address` whose network can be halted: it then reads nothing more from its clients. */
export class Network {
  static async start(address) {
    const network = new Network();
    const [host, port] = address.split(":");
    network.sockets = new Set();
    network.listener = createServer((near) => {
      const far = connect(Number(port), host);
      for (const [from, to] of [[near, far], [far, near]]) {
        network.sockets.add(from);
        from.on("error", () => to.destroy());
        from.on("close", () => {
          network.sockets.delete(from);
          to.destroy();
        });
      }
      near.pipe(far);
      far.pipe(near);
      network.stand = () => near.unpipe(far).pause();
      network.go = () => near.pipe(far);
    });
    await new Promise((resolve) => network.listener.listen(0, "127.0.0.1", resolve));
    network.address = `127.0.0.1:${network.listener.address().port}`;
    return network;
  }

  stop() {
    this.listener.close();
    for (const socket of this.sockets) socket.destroy();
  }
}

/** A browser; `page(…)` opens pages and records every error. */
export class Browser {
  static async start() {
    const browser = new Browser();
    browser.chromium = await chromium.launch({
      executablePath: BROWSER,
      args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--autoplay-policy=no-user-gesture-required", "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream", "--auto-select-desktop-capture-source=Entire screen"],
    });
    return browser;
  }

  /**
   * Opens `url`. `expected`: console messages that are allowed; `others`: further hosts that the page may
   * contact.
   */
  async page(url, { expected = /$^/, others = [], ...options } = {}) {
    const context = await this.chromium.newContext(options);
    const page = await context.newPage();
    page.errors = [];
    const note = (text) => { if (!expected.test(text)) page.errors.push(text); };
    page.on("console", (message) => message.type() === "error" && note(`${message.text()} ${message.location().url}`));
    page.on("pageerror", (error) => note(String(error)));
    const hosts = [new URL(url).host, ...others];
    const check = (address) => {
      const { host, protocol } = new URL(address);
      if (/^http|^ws/.test(protocol) && !hosts.includes(host)) note(`asks elsewhere: ${address}`);
    };
    page.on("request", (request) => check(request.url()));
    page.on("websocket", (socket) => check(socket.url()));
    await page.goto(url);
    return page;
  }

  stop() {
    return this.chromium.close();
  }
}

/** What a page shows, for the message of a test that fails. Runs in the page. */
function seen() {
  const text = document.body.innerText;
  const video = document.querySelector("video");
  if (!video) return { player: "none", text };
  const { currentTime, readyState, paused, seeking, playbackRate, buffered } = video;
  const ranges = Array.from({ length: buffered.length }, (_, at) => [buffered.start(at), buffered.end(at)]);
  const frames = video.getVideoPlaybackQuality();
  return { player: JSON.stringify({ currentTime, readyState, paused, seeking, playbackRate, ranges,
    decoded: frames.totalVideoFrames, dropped: frames.droppedVideoFrames, error: video.error?.message }), text };
}

/** Waits until `check` returns something in the page, and returns that. */
export async function until(page, what, check, argument) {
  try {
    const handle = await page.waitForFunction(check, argument, { timeout: PATIENCE_MS, polling: 100 });
    return await handle.jsonValue();
  } catch (error) {
    const { player, text } = await page.evaluate(seen).catch(() => ({ text: "nothing" }));
    const reason = error.message.split("\n", 1)[0];
    throw new Error([`${what}: ${reason}`, `Player: ${player}`, `Errors: ${page.errors.join("\n") || "none"}`,
      `The page says: ${text.replace(/\s*\n\s*/g, " | ")}`].join("\n"));
  }
}

/** Waits until the page's player has advanced by `seconds` and has decoded `frames` more. */
export async function plays(page, { seconds = 2, frames = 30 } = {}) {
  await until(page, "it begins to play", () => {
    const video = document.querySelector("video");
    // A page that has just been opened may not have created it yet.
    return video?.readyState >= 2 && !video.paused && video.getVideoPlaybackQuality().totalVideoFrames > 0;
  });
  const facts = () => page.evaluate(() => {
    const video = document.querySelector("video");
    return { time: video.currentTime, frames: video.getVideoPlaybackQuality().totalVideoFrames };
  });
  const from = await facts();
  await until(page, "it goes on", ({ time, count }) => {
    const video = document.querySelector("video");
    return video.currentTime >= time && video.getVideoPlaybackQuality().totalVideoFrames >= count;
  }, { time: from.time + seconds, count: from.frames + frames });
  return facts();
}

/** Moves the page's player to `time` and waits until it plays there. */
export async function seeks(page, time) {
  await page.evaluate((goal) => { document.querySelector("video").currentTime = goal; }, time);
  await until(page, `it plays at ${time} s`, (goal) => {
    const video = document.querySelector("video");
    return !video.seeking && video.currentTime > goal + 0.3 && video.currentTime < goal + 5 && video.readyState >= 2;
  }, time);
}

/** The answer of the server's API, once `check` holds for it. */
export async function api(server, path, check, address) {
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    const answer = await fetch(server.url(path, address));
    const said = await answer.json();
    if (check(said)) return said;
    assert.ok(Date.now() < until, `${path} goes on saying ${JSON.stringify(said)}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
