// The WebSocket to the server: FLV in binary messages. It connects again when the connection is lost, and
// limits the data that waits to be sent.

import { classify, flvHeader, setTime } from "./flv.js";

const RETRY_MS = [500, 1000, 2000, 4000];
/** Beyond this many unsent bytes video frames are dropped until the next keyframe … */
const LAG_SECONDS = 2;
const LAG_MIN = 256 << 10;
/** … and beyond this many times that, audio frames are dropped as well. */
const SOUND_TOO = 2;

/** The server's reason when an operator has ended a stream: the page must not connect again by itself. */
const KICKED = "an operator has ended it";

/** The number of seconds over which rates are measured. */
const RATE_SECONDS = 4;

export class PushLink {
  #socket = null;
  #configs = new Map();
  #tracks;
  #dropping = true;
  #closed = false;
  #retry = 0;
  #timer = 0;
  #recent = [];

  /**
   * `tracks`: `{ video, audio }`, the tracks that exist. `events.state(name, why)` is called with `connecting`,
   * `live`, `lost` (it tries again) and `refused` (it does not: the server refused the first attempt, or an
   * operator has ended the stream).
   */
  constructor(url, tracks, events) {
    this.url = url;
    this.#tracks = tracks;
    this.events = events;
    this.stats = { bytes: 0, frames: 0, dropped: 0, keyframes: 0, connects: 0, since: performance.now() };
    this.#connect();
  }

  #connect() {
    if (this.#closed) return;
    this.events.state("connecting");
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => {
      this.#dropping = this.#tracks.video;
      this.#put(flvHeader(this.#tracks.video, this.#tracks.audio));
      for (const config of this.#configs.values()) this.#put(config);
      this.stats.connects += 1;
      this.events.state("live");
    };
    socket.onclose = (event) => {
      if (this.#closed || socket !== this.#socket) return;
      // A refusal of the first attempt is reported; a later one may be caused by this page's old connection.
      if (event.code === 1008 && (this.stats.frames === 0 || event.reason === KICKED)) {
        this.#closed = true;
        this.events.state("refused", event.reason);
        return;
      }
      const wait = RETRY_MS[Math.min(this.#retry, RETRY_MS.length - 1)];
      this.#retry += 1;
      const silent = this.stats.connects > 0 ? "The network or the server ended it." : "No server answers at that address.";
      this.events.state("lost", event.reason || silent);
      this.#timer = setTimeout(() => this.#connect(), wait);
    };
  }

  /** Bytes that the network has not taken yet. */
  get unsent() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** The recent bits per second. */
  get rate() {
    const now = performance.now();
    this.#recent = this.#recent.filter(([at]) => now - at < RATE_SECONDS * 1000);
    const seconds = Math.min(RATE_SECONDS, (now - this.stats.since) / 1000);
    return (this.#recent.reduce((sum, [, bytes]) => sum + bytes, 0) * 8) / Math.max(seconds, 0.5);
  }

  /** Sends a tag, or drops it if it would arrive too late. Configurations are kept for the next connection. */
  send(tag) {
    const { kind, key, config, time } = classify(tag);
    if (config) {
      const kept = tag.slice();
      setTime(kept, 0);
      this.#configs.set(kind, kept);
    }
    if (this.#socket?.readyState !== WebSocket.OPEN) {
      this.#dropping = this.#tracks.video;
      if (kind === "video" && !config) this.stats.dropped += 1;
      return;
    }
    if (!config && !this.#keeps(kind, key)) {
      if (kind === "video") this.stats.dropped += 1;
      return;
    }
    this.#put(tag);
    if (kind === "video" && !config) {
      this.stats.frames += 1;
      this.stats.keyframes += Number(key);
    } else if (!this.#tracks.video && !config) {
      this.stats.frames += 1;
    }
    if (this.stats.frames === 50) this.#retry = 0;
    this.stats.time = time;
  }

  /** Whether a frame is sent: after a drop, video starts again at a keyframe, once the network has caught up. */
  #keeps(kind, key) {
    const limit = Math.max(LAG_MIN, (this.rate / 8) * LAG_SECONDS);
    const { unsent } = this;
    if (kind === "audio") return unsent < limit * SOUND_TOO && !(this.#dropping && this.stats.frames === 0);
    if (unsent > limit) this.#dropping = true;
    else if (key && unsent < limit / 2) this.#dropping = false;
    return !this.#dropping;
  }

  #put(bytes) {
    this.#socket.send(bytes);
    this.stats.bytes += bytes.length;
    this.#recent.push([performance.now(), bytes.length]);
  }

  /** Ends the stream. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
  }
}
