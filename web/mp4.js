// The MP4 that a take is merged into when it ends, in the browser's own player.

import { at, notice, play, setText } from "./lib/dom.js";
import { DOWNLOAD, playerFrame } from "./lib/frame.js";
import { explainMissing, run, sizeText } from "./lib/replay.js";

playerFrame({
  noun: "Recording",
  title: "Merged MP4 files",
  nothing: "No MP4 yet. It is made when a stream ends, if the server records fMP4.",
  download: DOWNLOAD,
});
const video = at("video");

function address(path) {
  const name = path.replace(/@.*$/, "").split("/").pop();
  return `/mp4/${path}/output_merge/${name}_full.mp4`;
}

function start(path) {
  setText(at("state"), "opening");
  video.src = address(path);
  play(video);
}

function stop() {
  video.removeAttribute("src");
  video.load();
  setText(at("state"), "idle");
}

video.addEventListener("error", async () => {
  const url = video.getAttribute("src");
  if (!url) return;
  setText(at("state"), "failed");
  const path = at("key").value;
  await page.listed; // before that it is not known what is live
  const [what, todo] = await explainMissing(url, {
    missing: page.isLive(path)
      ? [`${path} is still live.`, "Its MP4 is made when it ends. Until then: the live player, or fMP4."]
      : [`There is no MP4 of ${path}.`, "Pick one from the list; the server makes it if it records fMP4."],
    broken: ["The browser could not decode this file.", `${video.error?.message ?? ""} Download it and try VLC.`],
  });
  if (video.getAttribute("src") === url) notice(what, todo);
});

const page = run({ has: (take) => take.mp4 != null, facts: (take) => sizeText(take.mp4), start, stop, address });
