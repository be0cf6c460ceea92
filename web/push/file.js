// A local file, sent in real time without encoding: an FLV by its own tags, MP4, MOV, MKV and WebM by their
// packets.

import { BlobSource, EncodedPacketSink, Input, MATROSKA, MP4, QTFF, WEBM } from "../vendor/mediabunny.js";
import { AUDIO_CODECS, DecodeOrder, FlvReader, VIDEO_CODECS, classify, setTime } from "./flv.js";
import { configTag, describe, frameTag } from "./packets.js";

const PIECE = 1 << 20;
/** How far ahead of their time tags are sent, so that new players have something to start with. */
const LEAD_MS = 200;

/** Something in the file that cannot be sent, with what to do about it. */
export class FileError extends Error {}

/** Opens a file: `{ tracks, notes, tags() }`. `notes` say which parts are left out, and why. */
export async function open(file) {
  const head = new Uint8Array(await file.slice(0, 3).arrayBuffer());
  const isFlv = String.fromCharCode(...head) === "FLV";
  return isFlv ? openFlv(file) : openContainer(file);
}

async function openFlv(file) {
  const tracks = { video: false, audio: false };
  const reader = new FlvReader();
  for (const tag of reader.push(new Uint8Array(await file.slice(0, PIECE).arrayBuffer()))) {
    const { kind } = classify(tag);
    if (kind !== "script") tracks[kind] = true;
  }
  if (!tracks.video && !tracks.audio) throw new FileError("There is nothing to play at the start of this FLV.");
  return { tracks, notes: [], tags: () => flvTags(file) };
}

async function* flvTags(file) {
  const reader = new FlvReader();
  for (let at = 0; at < file.size; at += PIECE) {
    for (const bytes of reader.push(new Uint8Array(await file.slice(at, at + PIECE).arrayBuffer()))) {
      const { time } = classify(bytes);
      yield { bytes, time };
    }
  }
}

async function openContainer(file) {
  const input = new Input({ source: new BlobSource(file), formats: [MP4, QTFF, MATROSKA, WEBM] });
  if (!await input.canRead()) {
    throw new FileError("This is neither MP4, MOV, MKV, WebM nor FLV. Convert it: ffmpeg -i FILE -c copy out.mp4");
  }
  const [video, audio] = await Promise.all([input.getPrimaryVideoTrack(), input.getPrimaryAudioTrack()]);
  const notes = [];
  const usable = async (track, known, what, convert) => {
    if (!track) return null;
    const codec = await track.getCodec();
    if (codec in known) return { track, codec, config: await track.getDecoderConfig() };
    notes.push(`Its ${what} is ${codec ?? "of an unknown kind"}, which FLV cannot carry: it is left out. ` +
      `To have it: ffmpeg -i FILE ${convert} out.mp4`);
    return null;
  };
  const lanes = {
    video: await usable(video, VIDEO_CODECS, "picture", "-c:v libx264 -c:a copy"),
    audio: await usable(audio, AUDIO_CODECS, "sound", "-c:v copy -c:a aac"),
  };
  if (!lanes.video && !lanes.audio) throw new FileError(notes.join(" ") || "There is nothing to play in this file.");
  const facts = {
    video: lanes.video && {
      codec: lanes.video.codec,
      width: await video.getDisplayWidth(),
      height: await video.getDisplayHeight(),
    },
    audio: lanes.audio && {
      codec: lanes.audio.codec,
      rate: await audio.getSampleRate(),
      channels: await audio.getNumberOfChannels(),
    },
  };
  const tracks = { video: Boolean(lanes.video), audio: Boolean(lanes.audio) };
  return { tracks, notes, tags: () => packetTags(lanes, facts) };
}

/** All tags of a file in the order of their times, headers first. */
async function* packetTags(lanes, facts) {
  yield { bytes: describe(facts), time: 0 };
  const sources = [];
  for (const [kind, lane] of Object.entries(lanes)) {
    if (!lane) continue;
    const frames = framesOf(kind, lane);
    const next = (await frames.next()).value;
    if (!next) continue;
    const config = configTag(kind, lane.codec, lane.config, next.packet, 0);
    if (config) yield { bytes: config, time: 0 };
    sources.push({ kind, lane, frames, next });
  }
  const waiting = () => sources.filter((source) => source.next);
  // The earliest decoding time, which is below zero if frames are reordered, becomes zero.
  const base = Math.min(...waiting().map((source) => source.next.dts));
  for (let left = waiting(); left.length > 0; left = waiting()) {
    const source = left.reduce((first, other) => (other.next.dts < first.next.dts ? other : first));
    const { packet, dts, pts } = source.next;
    const bytes = frameTag(source.kind, source.lane.codec, packet, dts - base, pts - base);
    yield { bytes, time: Math.round(dts - base) };
    source.next = (await source.frames.next()).value;
  }
}

async function* framesOf(kind, { track }) {
  const order = new DecodeOrder(kind === "video" ? 16 : 0);
  for await (const packet of new EncodedPacketSink(track).packets()) {
    yield* order.push({ packet, pts: packet.timestamp * 1000 });
  }
  yield* order.flush();
}

/** Sends a file's tags at their times until its end, repeatedly if `loop()` returns true, or until `stop()`. */
export class FilePush {
  #stopped = false;

  constructor(opened, loop, sink) {
    Object.assign(this, { opened, loop, sink });
  }

  get tracks() {
    return this.opened.tracks;
  }

  async run() {
    const started = performance.now();
    let offset = 0;
    do {
      let first = null;
      let last = 0;
      let step = 0;
      for await (const { bytes, time } of this.opened.tags()) {
        if (!classify(bytes).config) first ??= time;
        const place = Math.max(0, time - (first ?? time));
        if (place > last) step = place - last;
        last = Math.max(last, place);
        await this.#until(started + offset + place - LEAD_MS);
        if (this.#stopped) return;
        setTime(bytes, offset + place);
        this.sink(bytes);
      }
      offset += last + Math.max(step, 1);
    } while (this.loop() && !this.#stopped);
  }

  async #until(time) {
    for (let wait = time - performance.now(); wait > 0 && !this.#stopped; wait = time - performance.now()) {
      await new Promise((resolve) => setTimeout(resolve, Math.min(wait, 500)));
    }
  }

  stop() {
    this.#stopped = true;
  }
}
