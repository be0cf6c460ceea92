// fMP4 by Media Source Extensions: both tracks in one file, or each in its own.

import { at, notice, play, setText } from "./lib/dom.js";
import { playerFrame } from "./lib/frame.js";
import { run } from "./lib/replay.js";
import { CodecError, HttpError, SegmentPlayer, TakeError } from "./lib/segments.js";

const RETRY_MS = 4000;

playerFrame({
  noun: "Stream",
  title: "fMP4, live and replay",
  nothing: "Nothing is recorded as fMP4. A stream that is published while the server packages or records fMP4 appears " +
    "here; its first segment takes some seconds.",
  controls: `<fieldset>
      <legend>Tracks</legend>
      <label><input type="radio" name="tracks" value="merge" checked><span>mixed</span></label>
      <label><input type="radio" name="tracks" value="separate"><span>separate</span></label>
    </fieldset>`,
  readout: [["kind", "Mode"], ["codecs", "Codecs"]],
});
const video = at("video");
const query = new URLSearchParams(location.search);
let player = null;
let timer = 0;

const tracks = () => at("controls").elements.tracks.value;
const address = (path) => `/mp4/${path}/output_${tracks()}/index.m3u8`;

function start(path) {
  setText(at("state"), "opening");
  if (!window.MediaSource) {
    notice("This browser has no Media Source Extensions.", "Use a current Chrome, Edge, Firefox or desktop Safari.");
    return;
  }
  player = new SegmentPlayer(video, address(path), {
    mode: (mode) => {
      setText(at("kind"), mode);
      if (mode === "live") page.watchesLive();
    },
    codecs: (codecs) => setText(at("codecs"), codecs),
    ready: () => play(video),
    failed: (error) => fail(path, error),
  });
}

function stop() {
  clearTimeout(timer);
  player?.stop();
  player = null;
  ["kind", "codecs"].forEach((id) => setText(at(id), "–"));
  setText(at("state"), "idle");
}

function fail(path, error) {
  if (error instanceof TakeError) {
    page.again();
    return;
  }
  setText(at("state"), "waiting");
  if (error instanceof CodecError) {
    notice("This browser cannot decode the stream's codecs.", `They are ${error.message}. Publish H.264 with AAC.`);
    return;
  }
  const [what, todo] = explain(path, error);
  notice(what, `${todo} Trying again in ${RETRY_MS / 1000} s.`);
  timer = setTimeout(page.again, RETRY_MS);
}

function explain(path, error) {
  if (error instanceof HttpError && error.status === 404) {
    return page.isLive(path)
      ? [`${path} is live, but has no fMP4 yet.`,
        "The first segment takes some seconds; none comes without --record fmp4 or --packaging fmp4."]
      : [`There is no fMP4 of ${path}.`, "Pick one from the list, or publish it while the server records fMP4."];
  }
  if (error instanceof HttpError) return [`The server refused: ${error.message}.`, ""];
  if (error instanceof TypeError) {
    return ["The server does not answer.", "Check that it runs and that its port is open."];
  }
  return ["The stream could not be played.", `${error.message}.`];
}

if (query.get("tracks") === "separate") at("controls").elements.tracks.value = "separate";
at("controls").addEventListener("change", (event) => {
  if (event.target.name !== "tracks") return;
  const here = new URL(location.href);
  here.searchParams.set("tracks", tracks());
  history.replaceState(null, "", here);
  page.again();
});

const page = run({
  has: (take) => take.fmp4_merge || take.fmp4_separate,
  format: "fmp4",
  facts: (take) => [take.fmp4_merge && "mixed", take.fmp4_separate && "separate"].filter(Boolean).join(", "),
  start,
  stop,
  address,
});
