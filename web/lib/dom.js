// Helpers that every page needs.

export const at = (id) => document.getElementById(id);

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function create(name, className = "", text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** Shows a message over the picture; without arguments, removes it. */
export function notice(what, todo) {
  const box = at("notice");
  if (!box.hidden && what && box.textContent === what + (todo ?? "")) return; // announced once is enough
  box.hidden = !what;
  box.replaceChildren();
  if (what) box.append(create("strong", "", what), todo ?? "");
}

export function count(n, noun) {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}

export function rateText(bits) {
  return bits >= 1e6 ? `${(bits / 1e6).toFixed(2)} Mbit/s` : `${Math.round(bits / 1e3)} kbit/s`;
}

export function bytesText(bytes) {
  if (bytes < 1e6) return `${Math.ceil(bytes / 1e3)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

export function durationText(ms) {
  const total = Math.floor(ms / 1000);
  const parts = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  return parts.map((part) => String(part).padStart(2, "0")).join(":");
}

/** Starts playback; if the browser requires a gesture first, shows a text about that. */
export function play(video) {
  video.play()?.catch((error) => {
    if (error.name === "NotAllowedError") notice("The browser requires a click first.", "Press play.");
  });
}

/** Seconds between the displayed and the newest received frame; null before anything was received. */
export function ahead(video) {
  const ranges = video.buffered;
  return ranges.length > 0 ? ranges.end(ranges.length - 1) - video.currentTime : null;
}

/** Writes the numbers of dropped, decoded and buffered frames into the elements of those names, if they exist. */
export function readOut(video) {
  const quality = video.getVideoPlaybackQuality?.();
  const late = ahead(video);
  setText(at("latency"), late == null ? "–" : `${late.toFixed(2)} s`);
  setText(at("dropped"), quality ? `${quality.droppedVideoFrames} of ${quality.totalVideoFrames}` : "–");
}
