// Media playlists and init segments, as far as Media Source Extensions need them. Pure: tested by `node
// --test`.

/** Attributes of a playlist's line: `URI="x",BANDWIDTH=5`. */
function attributes(text) {
  const found = {};
  for (const [, name, quoted, plain] of text.matchAll(/([A-Z0-9-]+)=(?:"([^"]*)"|([^,]*))/g)) {
    found[name] = quoted ?? plain;
  }
  return found;
}

/**
 * A playlist (RFC 8216). A master playlist gives `{ renditions: [uri …] }`; a media playlist gives
 * `{ sequence, ended, segments: [{ number, uri, map, duration }] }`, durations in seconds.
 */
export function parsePlaylist(text) {
  const lines = text.split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
  if (lines[0] !== "#EXTM3U") throw new Error("this is not a playlist");
  if (lines.some((line) => line.startsWith("#EXT-X-STREAM-INF"))) return { renditions: renditions(lines) };
  const list = { sequence: 0, ended: false, segments: [] };
  let map = null;
  let duration = 0;
  for (const line of lines) {
    const [, tag, value = ""] = /^#([A-Z-]+[A-Z0-9-]*)(?::(.*))?$/.exec(line) ?? [];
    if (tag === "EXT-X-MEDIA-SEQUENCE") list.sequence = Number(value);
    else if (tag === "EXT-X-MAP") map = attributes(value).URI;
    else if (tag === "EXTINF") duration = Number.parseFloat(value);
    else if (tag === "EXT-X-ENDLIST") list.ended = true;
    else if (!line.startsWith("#")) {
      list.segments.push({ number: list.sequence + list.segments.length, uri: line, map, duration });
    }
  }
  return list;
}

/** The variant's own playlist and that of its audio, if it is separate. */
function renditions(lines) {
  const media = lines.filter((line) => line.startsWith("#EXT-X-MEDIA:")).map((line) => attributes(line).URI);
  const variant = lines[lines.findIndex((line) => line.startsWith("#EXT-X-STREAM-INF")) + 1];
  return [...new Set([variant, ...media].filter(Boolean))];
}

/** Boxes of ISO 14496-12 that contain only boxes. */
const CONTAINERS = new Set(["moov", "trak", "mdia", "minf", "stbl", "moof", "traf", "mvex"]);

/** Calls `visit(type, view)` for each box in `view`, outer ones first. */
function visitBoxes(view, visit) {
  let at = 0;
  while (at + 8 <= view.byteLength) {
    const size = view.getUint32(at);
    if (size < 8 || at + size > view.byteLength) return;
    const type = fourcc(view, at + 4);
    const body = new DataView(view.buffer, view.byteOffset + at + 8, size - 8);
    visit(type, body);
    if (CONTAINERS.has(type)) visitBoxes(body, visit);
    at += size;
  }
}

function fourcc(view, at) {
  return String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
}

const hex = (...bytes) => bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");

/**
 * The MIME type with codecs of an init segment, for `addSourceBuffer`, or null if it has no track. A track of
 * an unknown codec is named by its four letters, so that the browser decides whether it supports it.
 */
export function mimeOf(init) {
  const codecs = [];
  let video = false;
  visitBoxes(new DataView(init), (type, stsd) => {
    if (type !== "stsd") return;
    const entry = new DataView(stsd.buffer, stsd.byteOffset + 8, stsd.byteLength - 8);
    const name = fourcc(entry, 4);
    const isAudio = ["mp4a", "Opus", "fLaC", ".mp3"].includes(name);
    const head = isAudio ? 36 : 86;
    video ||= !isAudio;
    let codec = name === "Opus" ? "opus" : name;
    visitBoxes(new DataView(entry.buffer, entry.byteOffset + head, entry.byteLength - head), (box, body) => {
      codec = describe(name, box, body) ?? codec;
    });
    codecs.push(codec);
  });
  if (codecs.length === 0) return null;
  return `${video ? "video" : "audio"}/mp4; codecs="${codecs.join(",")}"`;
}

/** The codec's name by RFC 6381 from the box that configures it; undefined for any other box. */
function describe(name, box, body) {
  const byte = (at) => body.getUint8(at);
  switch (box) {
    case "avcC":
      return `${name}.${hex(byte(1), byte(2), byte(3))}`;
    case "hvcC": {
      const space = ["", "A", "B", "C"][byte(1) >> 6];
      let flags = body.getUint32(2);
      let reversed = 0;
      for (let i = 0; i < 32; i += 1, flags >>>= 1) reversed = ((reversed << 1) | (flags & 1)) >>> 0;
      const tier = byte(1) & 0x20 ? "H" : "L";
      const limits = [6, 7, 8, 9, 10, 11].map(byte);
      while (limits.length > 0 && limits.at(-1) === 0) limits.pop();
      const tail = limits.map((limit) => `.${limit.toString(16)}`).join("");
      return `${name}.${space}${byte(1) & 0x1f}.${reversed.toString(16)}.${tier}${byte(12)}${tail}`;
    }
    case "av1C": {
      const level = String(byte(1) & 0x1f).padStart(2, "0");
      const depth = byte(2) & 0x40 ? (byte(2) & 0x20 ? "12" : "10") : "08";
      return `av01.${byte(1) >> 5}.${level}${byte(2) & 0x80 ? "H" : "M"}.${depth}`;
    }
    case "vpcC": {
      const two = (n) => String(n).padStart(2, "0");
      return `${name}.${two(byte(4))}.${two(byte(5))}.${two(byte(6) >> 4)}`;
    }
    case "esds":
      return audioObject(name, body);
    default:
      return undefined;
  }
}

/** `mp4a.40.2` and similar: the object type and, for MPEG-4 audio, the kind in AudioSpecificConfig. */
function audioObject(name, body) {
  let at = 4;
  const descriptor = () => {
    const tag = body.getUint8(at);
    at += 1;
    while (body.getUint8(at) & 0x80) at += 1;
    at += 1;
    return tag;
  };
  if (descriptor() !== 3) return undefined;
  at += 3;
  if (descriptor() !== 4) return undefined;
  const object = body.getUint8(at);
  at += 13;
  if (object !== 0x40 || descriptor() !== 5) return `${name}.${hex(object)}`;
  const first = body.getUint8(at);
  const kind = first >> 3;
  return `${name}.40.${kind === 31 ? 32 + (((first & 7) << 3) | (body.getUint8(at + 1) >> 5)) : kind}`;
}
