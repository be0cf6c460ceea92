// The findings of two independent readers on media files: mp4box.js (GPAC's) for MP4, and MediaInfo, which
// checks the containers and the bitstreams in them, for all kinds.
//
//   node check.mjs FILE…
//
// prints a line for each complaint and, for each file, its name and the number of frames found in its tracks.
// It fails if there was a complaint.
import { readFileSync } from "node:fs";
import { createFile, Log } from "mp4box";
import { mediaInfoFactory } from "mediainfo.js";

let complaints = 0;

function complain(file, text) {
  complaints += 1;
  console.log(`${file}: ${text}`);
}

/** Frames by kind of track, each of which was read. */
function box(file, bytes) {
  for (const level of ["warn", "error"]) {
    Log[level] = (module, ...words) => complain(file, `${module}: ${words.join(" ")}`);
  }
  const movie = createFile(true);
  const frames = {};
  let announced = {};
  movie.onError = (module, text) => complain(file, `${module}: ${text}`);
  movie.onReady = (info) => {
    for (const track of info.tracks) {
      announced[track.type] = track.nb_samples;
      movie.setExtractionOptions(track.id, track.type, { nbSamples: 100 });
    }
    movie.start();
  };
  movie.onSamples = (_, type, samples) => {
    frames[type] = (frames[type] ?? 0) + samples.length;
  };
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  buffer.fileStart = 0;
  movie.appendBuffer(buffer, true);
  movie.flush();
  for (const [type, count] of Object.entries(announced)) {
    if (frames[type] !== count) complain(file, `${count} samples of ${type} are announced, ${frames[type]} there`);
  }
  return frames;
}

/** All findings that report a deviation from a standard. */
function* findings(report, path = "") {
  for (const [key, value] of Object.entries(report ?? {})) {
    if (/conformance|truncated/i.test(key)) yield `${path}/${key}: ${JSON.stringify(value)}`;
    else if (typeof value === "object") yield* findings(value, `${path}/${key}`);
  }
}

/** Tracks by kind. */
async function info(reader, file, bytes) {
  const report = await reader.analyzeData(bytes.length, (len, from) => bytes.subarray(from, from + len));
  for (const finding of findings(report)) complain(file, finding);
  const tracks = report.media?.track.slice(1).map((track) => track["@type"].toLowerCase()) ?? [];
  if (!tracks.includes("audio") && !tracks.includes("video")) complain(file, "no track is known");
  return tracks;
}

const reader = await mediaInfoFactory({ format: "object", full: true });
for (const file of process.argv.slice(2)) {
  const bytes = readFileSync(file);
  const tracks = await info(reader, file, bytes);
  const frames = file.endsWith(".mp4") ? box(file, bytes) : {};
  const found = ["video", "audio"].filter((type) => tracks.includes(type)).map((type) => `${type} ${frames[type] ?? "?"}`);
  console.log(`${file}: ${found.join(", ")}`);
}
process.exitCode = complaints === 0 ? 0 : 1;
