// The status page: what it shows at the web port, and what operators see and do at the admin listener.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, Publisher, Server, api, plays, until } from "./harness.mjs";

const TOKEN = "a-token-for-the-tests";

let server;
let guarded;
let browser;
let publisher;

before(async () => {
  [server, guarded, browser] = await Promise.all([
    Server.start(), Server.start([], { URINGCAST_ADMIN_TOKEN: TOKEN }), Browser.start(),
  ]);
  publisher = new Publisher(server, "live/one");
  await api(server, "api/v1/streams", ({ streams }) => streams.some((one) => one.live));
});

after(async () => {
  await publisher?.stop();
  await browser?.stop();
  await Promise.all([server?.stop(), guarded?.stop()]);
});

const clean = (page) => assert.deepEqual(page.errors, [], "nothing on the console");
const said = (page, words) => until(page, `it says ${words}`,
  (pattern) => new RegExp(pattern).test(document.querySelector("#viewers-note").textContent), words);
const listed = (page, count) => until(page, `${count} viewers are listed`,
  (wanted) => document.querySelectorAll("#viewers tr").length === wanted, count);

test("the web port shows no button and does not mention operators", async () => {
  const page = await browser.page(server.url("status.html"));
  await until(page, "the stream is listed", () => document.querySelector("#streams tr[data-id='live/one']"));
  assert.equal(await page.locator("main button, dialog, input").count(), 0);
  assert.doesNotMatch(await page.textContent("main"), /kick|token|operator|admin/i);
  assert.ok(!(await page.content()).includes(server.addresses.admin.split(":")[1]));
  clean(page);
  await page.context().close();
});

test("an operator kicks a viewer, by keyboard, after a confirmation", async () => {
  const viewer = await browser.page(server.url("index.html?stream=live/one"));
  await viewer.check("input[value=ws]", { force: true });
  await plays(viewer);
  const page = await browser.page(server.url("", server.addresses.admin));
  await listed(page, 1);
  assert.match(await page.textContent("#viewers"), /127\.0\.0\.1:\d+live\/onews-flvorigin00:00/);
  const id = await page.getAttribute("#viewers tr", "data-id");
  const button = page.getByRole("button", { name: /^Kick 127\.0\.0\.1:\d+ off live\/one$/ });
  await button.focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  assert.match(await page.textContent("dialog"), /off live\/one\? It may come back/);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Cancel", "the harmless one first");
  await page.keyboard.press("Escape");
  await listed(page, 1);
  assert.equal(await page.getAttribute("#viewers tr", "data-id"), id, "it was not meant");
  assert.ok(await button.evaluate((element) => element === document.activeElement), "and the focus is back");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Enter");
  await said(page, "Done");
  await until(page, "that one is gone", (gone) => ![...document.querySelectorAll("#viewers tr")]
    .some((row) => row.dataset.id === gone), id);
  await plays(viewer); // as a new viewer: a kick is not a ban
  clean(page);
  await Promise.all([page.context().close(), viewer.context().close()]);
});

test("an operator kicks a publisher; its name is free", async () => {
  const page = await browser.page(server.url("status.html", server.addresses.admin));
  const button = page.getByRole("button", { name: "Kick the publisher of live/one" });
  await button.click();
  await page.click("#confirm-yes");
  await said(page, "Done");
  await until(page, "it is gone", () => !document.querySelector("#streams tr[data-id='live/one']")
    || /waits/.test(document.querySelector("#streams tr[data-id='live/one']").textContent));
  publisher = new Publisher(server, "live/one");
  await api(server, "api/v1/streams", ({ streams }) => streams.some((one) => one.live));
  await until(page, "it is back",
    () => document.querySelector("#streams tr td:nth-child(2)")?.textContent === "live");
  const [link] = await page.locator("header nav a").all();
  assert.equal(await link.getAttribute("href"), server.url("index.html"), "the players are at the web port");
  clean(page);
  await page.context().close();
});

test("a configured token is asked for", async () => {
  const page = await browser.page(guarded.url("status.html", guarded.addresses.admin), { expected: /401/ });
  await page.getByLabel("Admin token").waitFor();
  assert.equal(await page.isVisible("#viewers-box"), false);
  await page.fill("#token", "not-the-right-token");
  await page.press("#token", "Enter");
  await said(page, "not the token");
  assert.equal(await page.inputValue("#token"), "");
  await page.fill("#token", TOKEN);
  await page.press("#token", "Enter");
  await page.waitForSelector("#viewers-box", { state: "visible" });
  await until(page, "there are none", () => document.querySelector("#viewers-title").textContent === "Viewers: 0");
  assert.equal(await page.isVisible("#token-form"), false);
  assert.ok(!guarded.log.some((line) => line.includes(TOKEN)));
  clean(page);
  await page.context().close();
});
