// FLV (Adobe FLV 10.1, Annex E; Enhanced RTMP v2) as a byte stream: writing tags, and reading a file of them.
// Pure: tested by `node --test`.

const AUDIO = 8;
const VIDEO = 9;
const SCRIPT = 18;
/** Header and the first PreviousTagSize. */
const HEADER_BYTES = 13;
const TAG_HEAD = 11;
const BODY_MAX = 0xffffff;

const encoder = new TextEncoder();

/** Codecs that FLV carries, by the names that WebCodecs and Mediabunny give them. */
export const VIDEO_CODECS = { avc: null, hevc: "hvc1", vp9: "vp09", av1: "av01" };
export const AUDIO_CODECS = { aac: null, mp3: null, opus: "Opus" };

/** The head of a stream. */
export function flvHeader(hasVideo, hasAudio) {
  const flags = (hasAudio ? 4 : 0) | (hasVideo ? 1 : 0);
  return Uint8Array.of(0x46, 0x4c, 0x56, 1, flags, 0, 0, 0, 9, 0, 0, 0, 0);
}

/** A tag: its header, `parts` as its body, then its size. `time` in milliseconds. */
function tag(kind, time, ...parts) {
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  if (size > BODY_MAX) throw new Error(`a frame of ${size} bytes does not fit into a tag`);
  const bytes = new Uint8Array(TAG_HEAD + size + 4);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, size);
  bytes[0] = kind;
  setTime(bytes, time);
  let at = TAG_HEAD;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  view.setUint32(at, TAG_HEAD + size);
  return bytes;
}

/** Writes a tag's timestamp: UI24, followed by the upper eight bits. */
export function setTime(bytes, time) {
  const wrapped = Math.round(time) >>> 0;
  bytes[4] = (wrapped >> 16) & 0xff;
  bytes[5] = (wrapped >> 8) & 0xff;
  bytes[6] = wrapped & 0xff;
  bytes[7] = wrapped >>> 24;
}

function signed24(value) {
  return [(value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff];
}

/** The configuration of a video track, as a tag. `config`: its avcC, hvcC, vpcC or av1C. */
export function videoConfig(codec, config, time) {
  const fourcc = VIDEO_CODECS[codec];
  if (!fourcc) return tag(VIDEO, time, [0x17, 0, 0, 0, 0], config);
  return tag(VIDEO, time, [0x90], encoder.encode(fourcc), config);
}

/** A frame. `dts` and `pts` in milliseconds. */
export function videoFrame(codec, { data, key, dts, pts }) {
  const fourcc = VIDEO_CODECS[codec];
  const kind = key ? 0x10 : 0x20;
  const offset = Math.round(pts) - Math.round(dts);
  if (!fourcc) return tag(VIDEO, dts, [kind | 7, 1, ...signed24(offset)], data);
  const name = encoder.encode(fourcc);
  // Of the codecs with a FourCC, only HEVC sends frames in an order other than that of display.
  const composition = codec === "hevc" ? signed24(offset) : [];
  return tag(VIDEO, dts, [0x80 | kind | 1], name, composition, data);
}

/** The configuration of an audio track, as a tag; MP3 has none. `config`: AudioSpecificConfig or OpusHead. */
export function audioConfig(codec, config, time) {
  if (codec === "mp3") return null;
  const fourcc = AUDIO_CODECS[codec];
  if (!fourcc) return tag(AUDIO, time, [0xaf, 0], config);
  return tag(AUDIO, time, [0x90], encoder.encode(fourcc), config);
}

/** An audio frame. */
export function audioFrame(codec, { data, dts }) {
  if (codec === "mp3") return tag(AUDIO, dts, [0x2f], data);
  const fourcc = AUDIO_CODECS[codec];
  if (!fourcc) return tag(AUDIO, dts, [0xaf, 1], data);
  return tag(AUDIO, dts, [0x91], encoder.encode(fourcc), data);
}

/** `onMetaData` with `facts`: numbers, booleans and texts. */
export function metadata(facts) {
  const entries = Object.entries(facts).filter(([, value]) => value != null);
  const parts = [amfString("onMetaData"), [8], uint32(entries.length)];
  for (const [name, value] of entries) {
    const text = encoder.encode(name);
    parts.push([text.length >> 8, text.length & 0xff], text, amfValue(value));
  }
  parts.push([0, 0, 9]);
  return tag(SCRIPT, 0, ...parts);
}

function uint32(value) {
  return [value >>> 24, (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff];
}

function amfString(text) {
  const bytes = encoder.encode(text);
  return Uint8Array.of(2, bytes.length >> 8, bytes.length & 0xff, ...bytes);
}

function amfValue(value) {
  if (typeof value === "string") return amfString(value);
  if (typeof value === "boolean") return [1, Number(value)];
  const bytes = new Uint8Array(9);
  new DataView(bytes.buffer).setFloat64(1, value);
  return bytes;
}

/** The codec as `onMetaData` names it: its number, or its FourCC as one. */
export function codecId(codec) {
  const numbers = { avc: 7, aac: 10, mp3: 2 };
  const fourcc = VIDEO_CODECS[codec] ?? AUDIO_CODECS[codec];
  return numbers[codec] ?? (fourcc ? new DataView(encoder.encode(fourcc).buffer).getUint32(0) : undefined);
}

/** The vpcC body of VP9 from its codec name: `vp09.00.31.08` and its longer forms. */
export function vpcConfig(name) {
  const [profile = 0, level = 10, depth = 8, chroma = 1, primaries = 1, transfer = 1, matrix = 1, full = 0] =
    name.split(".").slice(1).map(Number);
  const flags = (depth << 4) | (chroma << 1) | full;
  return Uint8Array.of(1, 0, 0, 0, profile, level, flags, primaries, transfer, matrix, 0, 0);
}

/**
 * The av1C body of AV1 (AV1 in ISOBMFF, 2.3) from its codec name, `av01.0.05M.08`, and its first keyframe,
 * which contains the sequence header. Null if there is none.
 */
export function av1Config(name, keyframe) {
  const [, profile, level, depth] = name.split(".");
  const header = sequenceHeader(keyframe);
  if (!header) return null;
  const tier = level.endsWith("H") ? 0x80 : 0;
  const high = Number(depth) > 8 ? 0x40 : 0;
  const twelve = Number(depth) > 10 ? 0x20 : 0;
  const subsampled = profile === "1" ? 0 : 0x0c;
  const head = [0x81, (Number(profile) << 5) | Number.parseInt(level, 10), tier | high | twelve | subsampled, 0];
  return Uint8Array.of(...head, ...header);
}

/** The OBU of the sequence header in a temporal unit (AV1, 5.3): type 1. Encoders write the size of each OBU. */
function sequenceHeader(data) {
  let at = 0;
  while (at < data.length) {
    const start = at;
    const head = data[at];
    if (!(head & 2)) return null;
    at += head & 4 ? 2 : 1;
    let size = 0;
    for (let shift = 0; shift < 28 && at < data.length; shift += 7) {
      const byte = data[at];
      at += 1;
      size |= (byte & 0x7f) << shift;
      if (!(byte & 0x80)) break;
    }
    at += size;
    if (((head >> 3) & 0xf) === 1) return data.slice(start, at);
  }
  return null;
}

/** An OpusHead (RFC 7845, 5.1) for streams whose encoder gives none. */
export function opusHead(channels, rate) {
  const head = new Uint8Array(19);
  head.set(encoder.encode("OpusHead"));
  head[8] = 1;
  head[9] = channels;
  const view = new DataView(head.buffer);
  view.setUint16(10, 312, true);
  view.setUint32(12, rate, true);
  return head;
}

/** Classifies a tag by its own bytes: `{ kind, time, key, config }`. */
export function classify(bytes) {
  const time = ((bytes[4] << 16) | (bytes[5] << 8) | bytes[6] | (bytes[7] << 24)) >>> 0;
  const first = bytes[TAG_HEAD];
  if (bytes[0] === VIDEO) {
    const enhanced = (first & 0x80) !== 0;
    const config = enhanced ? (first & 0xf) === 0 : [7, 12].includes(first & 0xf) && bytes[TAG_HEAD + 1] === 0;
    return { kind: "video", time, key: ((first >> 4) & 7) === 1 && !config, config };
  }
  if (bytes[0] === AUDIO) {
    const enhanced = first >> 4 === 9;
    const config = enhanced ? (first & 0xf) === 0 : first >> 4 === 10 && bytes[TAG_HEAD + 1] === 0;
    return { kind: "audio", time, key: false, config };
  }
  return { kind: "script", time, key: false, config: true };
}

/** Parses an FLV file piece by piece as it is read. */
export class FlvReader {
  #rest = new Uint8Array(0);
  #begun = false;

  /** Tags that are complete with `bytes`, each followed by its size. Throws if this is not FLV. */
  push(bytes) {
    const all = new Uint8Array(this.#rest.length + bytes.length);
    all.set(this.#rest);
    all.set(bytes, this.#rest.length);
    let at = 0;
    if (!this.#begun) {
      if (all.length < HEADER_BYTES) {
        this.#rest = all;
        return [];
      }
      if (all[0] !== 0x46 || all[1] !== 0x4c || all[2] !== 0x56) throw new Error("this is not an FLV file");
      at = new DataView(all.buffer).getUint32(5) + 4;
      this.#begun = true;
    }
    const tags = [];
    while (at + TAG_HEAD <= all.length) {
      const end = at + TAG_HEAD + ((all[at + 1] << 16) | (all[at + 2] << 8) | all[at + 3]) + 4;
      if (end > all.length) break;
      if (![AUDIO, VIDEO, SCRIPT].includes(all[at])) throw new Error(`a tag of the unknown kind ${all[at]}`);
      tags.push(all.slice(at, end));
      at = end;
    }
    this.#rest = all.slice(at);
    return tags;
  }
}

/**
 * Gives decoding times to frames that arrive in decoding order with display times only: the sorted display
 * times, moved back so far that no frame is displayed before it is decoded.
 */
export class DecodeOrder {
  #frames = [];
  #times = [];
  #delay = null;
  #last = -Infinity;

  /** `depth`: the most frames between a frame's position in decoding and in display order. */
  constructor(depth = 16) {
    this.depth = depth;
  }

  /** Takes a frame with its `pts`; returns the frames whose `dts` is now known. */
  push(frame) {
    this.#frames.push(frame);
    const at = this.#times.findLastIndex((time) => time <= frame.pts) + 1;
    this.#times.splice(at, 0, frame.pts);
    return this.#frames.length > this.depth ? [this.#next()] : [];
  }

  /** Returns the remaining frames. */
  flush() {
    const rest = [];
    while (this.#frames.length > 0) rest.push(this.#next());
    return rest;
  }

  #next() {
    this.#delay ??= Math.max(0, ...this.#frames.map((frame, index) => this.#times[index] - frame.pts));
    const frame = this.#frames.shift();
    this.#last = Math.max(this.#last, this.#times.shift() - this.#delay);
    return { ...frame, dts: this.#last };
  }
}
