// The FLV recording as a file, by mpegts.js: it seeks by the keyframe index that the recorder writes at the
// end.

import { at, notice, play, setText } from "./lib/dom.js";
import { DOWNLOAD, playerFrame } from "./lib/frame.js";
import { explainMissing, run, sizeText } from "./lib/replay.js";

playerFrame({
  noun: "Recording",
  title: "FLV recordings",
  nothing: "No FLV recording yet. It is written while a stream is published, if the server records FLV.",
  hint: '<p id="hint" class="hint" hidden></p>',
  download: DOWNLOAD,
});
const video = at("video");
let player = null;

const address = (path) => `/flv/${path}/index.flv`;

function start(path, take, isLive) {
  if (!window.mpegts?.isSupported()) {
    notice("This browser has no Media Source Extensions.", "Download the file, or open it in VLC.");
    return;
  }
  const url = address(path);
  setText(at("state"), "opening");
  const own = mpegts.createPlayer(
    { type: "flv", isLive: false, url, cors: true },
    { lazyLoadMaxDuration: 60, autoCleanupSourceBuffer: true, accurateSeek: false },
  );
  player = own;
  own.on(mpegts.Events.ERROR, (kind, detail, info) => fail(own, path, url, detail, info));
  own.on(mpegts.Events.MEDIA_INFO, (info) => {
    const words = isLive
      ? "This take is still being written: it plays up to where it is now. Open it again for more."
      : "This file has no keyframe index (its recording was cut short): seeking reaches only what is loaded.";
    at("hint").hidden = info.hasKeyframesIndex === true;
    setText(at("hint"), words);
  });
  own.attachMediaElement(video);
  own.load();
  play(video);
}

function stop() {
  const own = player;
  player = null;
  own?.destroy();
  at("hint").hidden = true;
  setText(at("state"), "idle");
}

async function fail(own, path, url, detail, info) {
  if (own !== player) return;
  setText(at("state"), "failed");
  const [what, todo] = await explainMissing(url, {
    missing: [`There is no FLV recording of ${path}.`,
      "Pick one from the list; the server makes it if it records FLV (--record flv)."],
    broken: detail === mpegts.ErrorDetails.MEDIA_CODEC_UNSUPPORTED
      ? ["This browser cannot decode the file's codecs.", "Download it and try VLC."]
      : ["The file could not be played.", `${detail ?? ""} ${info?.msg ?? ""}`.trim()],
  });
  if (own === player) notice(what, todo);
}

if (window.mpegts) mpegts.LoggingControl.enableAll = false;
run({ has: (take) => take.flv != null, facts: (take) => sizeText(take.flv), start, stop, address });
