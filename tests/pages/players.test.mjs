// Each page that plays, in a real browser, with a live stream and with its recordings.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, Publisher, Server, api, plays, seeks, until } from "./harness.mjs";

let server;
let browser;
let publisher;

before(async () => {
  [server, browser] = await Promise.all([Server.start(), Browser.start()]);
  publisher = new Publisher(server, "live/one");
});

after(async () => {
  await publisher?.stop();
  await browser?.stop();
  await server?.stop();
});

const clean = (page) => assert.deepEqual(page.errors, [], "nothing on the console");
const found = (check) => api(server, "api/v1/recordings", ({ recordings }) => recordings.some(check));

for (const transport of ["http", "ws"]) {
  test(`live by ${transport}`, async () => {
    const page = await browser.page(server.url("index.html?stream=live/one"));
    await page.check(`input[value=${transport}]`, { force: true });
    await plays(page);
    const listed = await until(page, "the list says what it is", () => {
      const entry = document.querySelector("#streams [aria-current=true] small")?.textContent ?? "";
      return /viewer.*320×180.*h264 \+ aac.*bit\/s/.test(entry) && entry;
    });
    assert.match(listed, /1 viewer/);
    clean(page);
    await page.context().close();
  });
}

test("the first stream is played if none is named, and continues after its publisher came back", async () => {
  const page = await browser.page(server.url(""));
  await plays(page);
  assert.match(page.url(), /stream=live%2Fone/);
  await publisher.stop();
  publisher = new Publisher(server, "live/one");
  await plays(page, { seconds: 3, frames: 60 });
  clean(page);
  await page.context().close();
});

test("HLS while it is live", async () => {
  await found((take) => take.key === "live/one" && !take.take && take.hls);
  const page = await browser.page(server.url("play.html?stream=live/one"));
  await plays(page);
  await until(page, "it says that it is live", () => document.querySelector("#kind").textContent === "live");
  clean(page);
  await page.context().close();
});

for (const tracks of ["merge", "separate"]) {
  test(`fMP4 while it is live, tracks: ${tracks}`, async () => {
    await found((take) => take.key === "live/one" && !take.take && take[`fmp4_${tracks}`]);
    const page = await browser.page(server.url(`play_merge.html?stream=live/one&tracks=${tracks}`));
    await plays(page, { seconds: 4, frames: 80 });
    assert.equal(await page.textContent("#kind"), "live");
    assert.match(await page.textContent("#codecs"), tracks === "merge" ? /^avc1.*,mp4a/ : /^avc1.* \+ mp4a/);
    clean(page);
    await page.context().close();
  });
}

test("the status page counts, draws and links", async () => {
  const page = await browser.page(server.url("status.html"));
  const viewer = await browser.page(server.url("index.html?stream=live/one"));
  await plays(viewer);
  await until(page, "the stream is listed with its viewer", () => {
    const cells = [...document.querySelectorAll("#streams tr[data-id='live/one'] td")].map((cell) => cell.textContent);
    return cells[1] === "live" && cells[2] === "1" && cells[3] === "320×180" && /bit/.test(cells[5]);
  });
  await until(page, "the sent bytes are drawn", () => {
    const points = document.querySelector("#roles polyline")?.getAttribute("points").split(" ") ?? [];
    return points.length > 3 && new Set(points.map((point) => point.split(",")[1])).size > 1;
  });
  await page.click("#recordings a >> nth=0");
  await plays(page, { seconds: 1, frames: 10 });
  clean(page);
  await Promise.all([page.context().close(), viewer.context().close()]);
});

test("after the stream: HLS, MP4, FLV and fMP4 play and seek", async (t) => {
  const before = await browser.page(server.url("mp4.html?stream=live/one"), { expected: /404/ });
  await until(before, "it says that there is no MP4 yet",
    () => document.querySelector("#notice").textContent.includes("still live"));
  await before.context().close();

  await new Promise((resolve) => setTimeout(resolve, 6000));
  await publisher.stop();
  await found((take) => take.key === "live/one" && !take.take && take.hls && take.mp4 && take.flv);

  for (const name of ["play.html", "mp4.html", "video.html", "play_merge.html", "play_merge.html?tracks=separate"]) {
    await t.test(name, async () => {
      const page = await browser.page(server.url(name));
      await plays(page, { seconds: 1, frames: 20 });
      assert.match(page.url(), /stream=live%2Fone/, "the newest is played if none is named");
      const length = await until(page, "its length is known", () => {
        const { duration } = document.querySelector("video");
        return Number.isFinite(duration) && duration > 6 && duration;
      });
      await seeks(page, length - 3);
      await seeks(page, 1);
      if (await page.isVisible("#download")) {
        const answer = await page.request.head(await page.getAttribute("#download", "href"));
        assert.equal(answer.status(), 200, "the download is there");
      }
      clean(page);
      await page.context().close();
    });
  }
});

test("missing streams are reported, with what to do", async () => {
  for (const [name, words] of [["index.html", "not live.*publish it"], ["play.html", "no HLS.*list"],
    ["mp4.html", "no MP4.*list"], ["video.html", "no FLV.*list"], ["play_merge.html", "no fMP4.*list"]]) {
    const page = await browser.page(server.url(`${name}?stream=live/nobody`), { expected: /404/ });
    await until(page, `${name} knows why`, (pattern) => new RegExp(pattern, "s")
      .test(document.querySelector("#notice").textContent), words);
    await page.fill("#key", "no name");
    await page.press("#key", "Enter");
    assert.match(await page.textContent("#notice"), /not a stream name/);
    clean(page);
    await page.context().close();
  }
});

test("the layout is stable while a page is built", async () => {
  for (const name of ["index", "play", "play_merge", "mp4", "video", "push", "status"]) {
    const page = await browser.page(server.url(`${name}.html`), { expected: /404/ });
    await page.waitForSelector("header nav [aria-current=page]");
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const shifted = await page.evaluate(() => new Promise((resolve) => {
      let sum = 0;
      const add = (list) => list.getEntries().forEach(({ value }) => { sum += value; });
      new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });
      setTimeout(() => resolve(sum), 200);
    }));
    assert.ok(shifted < 0.05, `${name}: ${shifted}`);
    await page.context().close();
  }
});

test("pages obey their policy and contact no other host", async () => {
  const answer = await fetch(server.url("index.html"));
  assert.match(answer.headers.get("content-security-policy"), /default-src 'self'/);
  assert.doesNotMatch(answer.headers.get("content-security-policy"), /unsafe-inline|'unsafe-eval'/);
});
