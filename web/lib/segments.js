// A player for fragmented MP4 by Media Source Extensions: one SourceBuffer and one loader per playlist.

import { mimeOf, parsePlaylist } from "./fmp4.js";

/** How far ahead media is fetched, and how much is kept behind the playback position, in seconds. */
const AHEAD_S = 20;
const BEHIND_S = 30;
/** Segments that a live player starts with: as many as the first playlist names at its end. */
const LIVE_SEGMENTS = 3;
const POLL_MS = 1000;
/** After this time without a new segment, a playlist counts as over, even without an end tag. */
const STALE_MS = 20_000;
/** Gaps of a replay up to this length are skipped, in seconds; of a live stream, all gaps. */
const HOLE_S = 2;

/** Why a file is not available. */
export class HttpError extends Error {
  constructor(url, status) {
    super(`${url}: ${status}`);
    this.status = status;
  }
}

export class CodecError extends Error {}

/** The playlist names none of its earlier segments: it is another take, whose time starts again. */
export class TakeError extends Error {}

/** Whether the playlist at `url`, which may be a master playlist, still grows. */
export async function isGrowing(url) {
  const list = parsePlaylist(await (await get(url)).text());
  return list.renditions ? isGrowing(new URL(list.renditions[0], new URL(url, location.href))) : !list.ended;
}

async function get(url, signal) {
  const answer = await fetch(url, { signal, cache: "no-cache" });
  if (!answer.ok) throw new HttpError(url, answer.status);
  return answer;
}

/** One playlist and its SourceBuffer. */
class Track {
  constructor(player, url) {
    Object.assign(this, { player, url, list: null, buffer: null, map: null, mime: null, next: null, grown: 0 });
  }

  async refresh() {
    const before = this.list?.segments.at(-1)?.number;
    this.list = parsePlaylist(await (await get(this.url, this.player.signal)).text());
    if (this.list.segments[0]?.number > before) throw new TakeError();
    if (this.list.segments.at(-1)?.number !== before) this.grown = performance.now();
  }

  /** Over: the playlist has ended, or has not grown for long. */
  get ended() {
    return this.list.ended || performance.now() - this.grown > STALE_MS;
  }

  /** The segment to begin with: the first one of a replay, or one near the end of a live playlist. */
  begin() {
    const { segments, ended } = this.list;
    this.next = (ended ? segments[0] : segments.at(-LIVE_SEGMENTS) ?? segments[0])?.number ?? null;
  }

  /** The segment that holds `time`, by the durations in the playlist, counted from its start. */
  at(time) {
    let end = this.player.origin ?? 0;
    const { segments } = this.list;
    return segments.find((segment) => (end += segment.duration) > time) ?? segments.at(-1);
  }

  /** Seconds that are buffered from `time` on. */
  bufferedFrom(time) {
    const ranges = this.buffer?.buffered;
    for (let i = 0; i < (ranges?.length ?? 0); i += 1) {
      if (ranges.start(i) <= time + 0.1 && ranges.end(i) > time) return ranges.end(i) - time;
    }
    return 0;
  }

  /** Appends the next segment, if there is one and the buffer has capacity. Returns whether it did. */
  async step() {
    const { video, signal } = this.player;
    const first = this.list.segments[0];
    if (!first) return false;
    if (this.next < first.number) this.next = first.number; // it is no longer in the playlist
    const segment = this.list.segments[this.next - first.number];
    if (!segment || this.bufferedFrom(video.currentTime) > AHEAD_S) return false;
    const { generation } = this.player;
    if (segment.map !== this.map) await this.open(segment.map);
    const bytes = await (await get(new URL(segment.uri, this.url), signal)).arrayBuffer();
    if (generation !== this.player.generation) return true; // the user has seeked meanwhile
    await this.append(bytes);
    this.next = segment.number + 1;
    await this.tidy();
    return true;
  }

  /** Appends an init segment and reads the codecs from it. */
  async open(map) {
    const init = await (await get(new URL(map, this.url), this.player.signal)).arrayBuffer();
    const mime = mimeOf(init);
    if (!mime || !MediaSource.isTypeSupported(mime)) throw new CodecError(mime ?? "no track");
    if (!this.buffer) this.buffer = this.player.source.addSourceBuffer(mime);
    else if (mime !== this.mime) this.buffer.changeType(mime);
    this.mime = mime;
    // All SourceBuffers must be there before the first of them is filled.
    await this.player.opened();
    await this.append(init);
    this.map = map;
  }

  async append(bytes) {
    await this.update(() => this.buffer.appendBuffer(bytes));
  }

  async update(start) {
    const { buffer } = this;
    await new Promise((resolve, reject) => {
      // After an error an `updateend` follows as well: the first event counts.
      const heard = new AbortController();
      const on = (event, act) => buffer.addEventListener(event, () => {
        heard.abort();
        act();
      }, { signal: heard.signal });
      on("error", () => reject(new Error("the browser refused a segment")));
      on("updateend", resolve);
      start();
    });
  }

  /** Frees the memory of media that was played long ago. */
  async tidy() {
    const until = this.player.video.currentTime - BEHIND_S;
    if (this.buffer.buffered.length > 0 && this.buffer.buffered.start(0) < until - BEHIND_S) {
      await this.update(() => this.buffer.remove(0, until));
    }
  }
}

/** Plays the playlist at `url`, which may be a master playlist, in `video` until `stop()`. */
export class SegmentPlayer {
  constructor(video, url, events) {
    Object.assign(this, { video, events, source: new MediaSource(), tracks: [], generation: 0, origin: null });
    this.controller = new AbortController();
    this.signal = this.controller.signal;
    this.object = URL.createObjectURL(this.source);
    video.src = this.object;
    video.addEventListener("seeking", () => this.seek(), { signal: this.signal });
    this.run(new URL(url, location.href)).catch((error) => {
      if (!this.signal.aborted) this.events.failed(error);
    });
  }

  stop() {
    this.controller.abort();
    URL.revokeObjectURL(this.object);
    this.video.removeAttribute("src");
    this.video.load();
  }

  async run(url) {
    if (this.source.readyState !== "open") {
      await new Promise((resolve) => this.source.addEventListener("sourceopen", resolve, { once: true }));
    }
    const list = parsePlaylist(await (await get(url, this.signal)).text());
    const urls = list.renditions?.map((uri) => new URL(uri, url)) ?? [url];
    this.tracks = urls.map((one) => new Track(this, one));
    await Promise.all(this.tracks.map((track) => track.refresh()));
    this.tracks.forEach((track) => track.begin());
    this.live = !this.tracks[0].list.ended;
    this.events.mode(this.live ? "live" : "replay");
    this.all = Promise.withResolvers?.() ?? deferred();
    await Promise.all(this.tracks.map((track) => this.feed(track)));
  }

  /** Resolves when each track has its SourceBuffer. */
  opened() {
    if (this.tracks.every((track) => track.buffer)) {
      this.events.codecs(this.tracks.map((track) => /"(.*)"/.exec(track.mime)[1]).join(" + "));
      this.all.resolve();
    }
    return this.all.promise;
  }

  async feed(track) {
    let polled = performance.now();
    while (!this.signal.aborted) {
      const stepped = await track.step();
      if (stepped) this.settle();
      this.jump();
      if (this.tracks.every((one) => one.ended && one.next > (one.list.segments.at(-1)?.number ?? -1))) this.end();
      if (!stepped) await new Promise((resolve) => setTimeout(resolve, POLL_MS / 4));
      if (!track.list.ended && performance.now() - polled > POLL_MS) {
        polled = performance.now();
        await track.refresh();
        if (track.ended && this.live) this.events.mode("ended");
      }
    }
  }

  /** After the first segments: playback begins at their start, and a replay's length is known. */
  settle() {
    if (this.origin !== null || !this.tracks.every((track) => track.buffer?.buffered.length > 0)) return;
    this.origin = Math.max(...this.tracks.map((track) => track.buffer.buffered.start(0)));
    if (!this.live) {
      const total = (track) => track.list.segments.reduce((sum, segment) => sum + segment.duration, 0);
      this.source.duration = this.origin + Math.max(...this.tracks.map(total));
    }
    if (this.video.currentTime < this.origin) this.video.currentTime = this.origin;
    this.events.ready();
  }

  /** The user has seeked: buffered media is kept, and fetching continues at the new position. */
  seek() {
    if (this.origin === null || this.live) return;
    const time = this.video.currentTime;
    if (this.tracks.every((track) => track.bufferedFrom(time) > 1)) return;
    this.generation += 1;
    for (const track of this.tracks) track.next = track.at(time).number;
  }

  /** Playback that has stopped before a gap is moved past it. */
  jump() {
    const { video } = this;
    const ranges = video.buffered;
    if (this.origin === null || video.seeking || video.readyState > 2) return;
    for (let i = 0; i < ranges.length; i += 1) {
      const hole = ranges.start(i) - video.currentTime;
      if (hole > 0 && (this.live || hole < HOLE_S)) {
        video.currentTime = ranges.start(i) + 0.01;
        return;
      }
    }
  }

  end() {
    const busy = this.tracks.some((track) => track.buffer?.updating);
    if (this.source.readyState === "open" && !busy) this.source.endOfStream();
  }
}

function deferred() {
  const one = {};
  one.promise = new Promise((resolve) => { one.resolve = resolve; });
  return one;
}
