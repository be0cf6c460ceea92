// A page that plays a live stream continues with its next take by itself.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, Publisher, Server, api, plays, until } from "./harness.mjs";

const PAGES = ["play.html", "play_merge.html", "play_merge.html?tracks=separate"];

let server;
let gateway;
let browser;
let publisher;

before(async () => {
  [server, browser] = await Promise.all([Server.start([], { URINGCAST_ORIGIN__GAP: "1s" }), Browser.start()]);
  gateway = await Server.fileGateway(server);
});

after(async () => {
  await publisher?.stop();
  await browser?.stop();
  await gateway?.stop();
  await server?.stop();
});

const says = (page, words) => until(page, `it says ${words}`,
  (pattern) => new RegExp(pattern).test(document.querySelector("#notice").textContent), words);
const takes = (count) => api(server, "api/v1/recordings", ({ recordings }) => {
  const own = recordings.filter((take) => take.key === "live/take");
  return own.length === count && own.some((take) => !take.take && take.hls && take.fmp4_merge && take.fmp4_separate);
});

test("the next take is played without a reload, and the page shows what it waits for", async (t) => {
  publisher = new Publisher(server, "live/take");
  await takes(1);
  const watched = (name) => `${name}${name.includes("?") ? "&" : "?"}stream=live/take`;
  const urls = [...PAGES.map((name) => server.url(watched(name))),
    ...PAGES.map((name) => gateway.url(watched(name), gateway.addresses.listen))];
  const pages = await Promise.all(urls.map(async (url) => {
    const page = await browser.page(url,
      // While the takes change, files may be requested that have been moved already.
      { expected: /404/ });
    // The text may be visible for a moment only, and a reload would discard it.
    await page.evaluate(() => {
      window.said = [];
      const note = () => window.said.push(document.querySelector("#notice").textContent);
      new MutationObserver(note).observe(document.querySelector("#notice"), { childList: true });
    });
    return page;
  }));
  await Promise.all(pages.map((page) => plays(page)));
  await publisher.stop();
  await Promise.all(pages.map((page) => says(page, "ended.*goes on here when its publisher comes back")));
  publisher = new Publisher(server, "live/take");
  for (const [index, page] of pages.entries()) {
    await t.test(urls[index], async () => {
      await plays(page, { seconds: 3, frames: 60 });
      assert.equal(await page.textContent("#kind"), "live");
      assert.equal(await page.isVisible("#notice"), false);
      const said = await page.evaluate(() => window.said);
      const words = index < PAGES.length ? /live again.*first segment/ : /goes on here/; // gateways know no streams
      assert.ok(said.some((text) => words.test(text)), said.join("\n"));
      assert.deepEqual(page.errors, [], "nothing on the console");
    });
  }
  await takes(2);
});

test("a live stream that is packaged and not recorded is in the list, and is played from there", async () => {
  const own = await Server.packager();
  const source = new Publisher(own, "live/unrecorded");
  try {
    for (const name of ["play.html", "play_merge.html"]) {
      // The first request lets packaging begin.
      const page = await browser.page(own.url(name), { expected: /404/ });
      await until(page, "it lists the stream", () => document.querySelector("#recordings").textContent
        .includes("live/unrecorded"));
      assert.match(await page.textContent("#recordings"), /live now/);
      await plays(page, { seconds: 3, frames: 60 });
      assert.match(await page.textContent("#server"), /0 recordings/);
      assert.deepEqual(page.errors, [], "nothing on the console");
      await page.context().close();
    }
  } finally {
    await source.stop();
    await own.stop();
  }
});

test("a long stream is split into takes, and live viewers notice nothing", async (t) => {
  const own = await Server.start([], { URINGCAST_RECORDING__TAKE: "6s", URINGCAST_RECORDING__SEGMENT: "2s" });
  const pushing = new Publisher(own, "live/long");
  try {
    const parted = (count) => api(own, "api/v1/recordings",
      ({ recordings }) => recordings.filter((take) => take.key === "live/long").length >= count);
    await parted(1);
    const names = PAGES.map((name) => `${name}${name.includes("?") ? "&" : "?"}stream=live/long`);
    const pages = await Promise.all(names.map((name) => browser.page(own.url(name))));
    await Promise.all(pages.map((page) => plays(page)));
    const timeOf = (page) => page.evaluate(() => document.querySelector("video").currentTime);
    const before = await Promise.all(pages.map(timeOf));
    await parted(4);
    for (const [index, page] of pages.entries()) {
      await t.test(names[index], async () => {
        // The clock was read at some time of a take, late on a busy machine: a take and a second later it is in
        // the next one.
        await until(page, "it plays more than a take", (end) => document.querySelector("video").currentTime > end,
          before[index] + 7);
        await plays(page, { seconds: 3, frames: 60 });
        assert.equal(await page.textContent("#kind"), "live");
        assert.equal(await page.isVisible("#notice"), false);
        assert.deepEqual(page.errors, [], "nothing on the console");
      });
    }
  } finally {
    await pushing.stop();
    await own.stop();
  }
});
