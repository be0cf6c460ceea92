// Camera, screen and microphone, encoded by WebCodecs (through Mediabunny, which handles the differences
// between browsers).

import {
  MediaStreamAudioTrackSource, MediaStreamVideoTrackSource, MkvOutputFormat, NullTarget, Output, Quality,
  canEncodeAudio, canEncodeVideo,
} from "../vendor/mediabunny.js";
import { configTag, describe, frameTag } from "./packets.js";

/** The codecs that the live player of this site decodes, best first. */
const VIDEO_NAMES = { avc: "H.264", hevc: "H.265 (HEVC)", av1: "AV1" };

/** What this browser can encode: `{ video: [{ codec, name }], audio: [{ codec, name }] }`, best first. */
export async function encoders() {
  if (!window.VideoEncoder) return { video: [], audio: [] };
  const video = [];
  for (const [codec, name] of Object.entries(VIDEO_NAMES)) {
    if (await canEncodeVideo(codec, { width: 1280, height: 720, quality: new Quality({ bitrate: 2e6 }) })) {
      video.push({ codec, name });
    }
  }
  const native = await canEncodeAudio("aac", { numberOfChannels: 2, sampleRate: 48000 });
  const audio = [{ codec: "aac", name: native ? "AAC" : "AAC (encoded by this page)", native }];
  if (await canEncodeAudio("opus")) audio.push({ codec: "opus", name: "Opus", native: true });
  return { video, audio };
}

/**
 * For browsers without an AAC encoder, such as Chromium on Linux: one in WebAssembly. It is large, so only they
 * load it.
 */
let aac = null;
async function needAac() {
  aac ??= import("../vendor/aac-encoder.js").then((module) => module.registerAacEncoder());
  await aac;
}

/** Opens the capture: `{ kind: "camera" | "screen", width, height, fps, camera, microphone }`. */
export async function open({ kind, width, height, fps, camera, microphone }) {
  const size = { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: fps } };
  const sound = microphone === "none" ? false : { deviceId: microphone ? { ideal: microphone } : undefined };
  if (kind === "camera") {
    const device = camera ? { deviceId: { ideal: camera } } : {};
    return navigator.mediaDevices.getUserMedia({ video: { ...size, ...device }, audio: sound });
  }
  const screen = await navigator.mediaDevices.getDisplayMedia({ video: size, audio: true });
  if (sound && screen.getAudioTracks().length === 0) {
    const voice = await navigator.mediaDevices.getUserMedia({ audio: sound }).catch(() => null);
    voice?.getAudioTracks().forEach((track) => screen.addTrack(track));
  }
  return screen;
}

/** One track and its encoder. The output is not written anywhere: only its packets are used. */
class Encoding {
  constructor(source, add) {
    this.output = new Output({ format: new MkvOutputFormat({ appendOnly: true }), target: new NullTarget() });
    this.source = source;
    add(this.output, source);
  }
}

/** Encodes a MediaStream and passes its tags to `sink` until `stop()`. */
export class Capture {
  #encodings = [];

  /** `setting`: `{ video: { codec, bitrate, gop, fps, width, height }, audio: { codec, bitrate } }`. */
  constructor(stream, setting, sink) {
    this.stream = stream;
    this.setting = setting;
    this.sink = sink;
    this.origin = Date.now() / 1000;
    [this.videoTrack] = stream.getVideoTracks();
    [this.audioTrack] = stream.getAudioTracks();
  }

  /** The tracks that exist. */
  get tracks() {
    return { video: Boolean(this.videoTrack), audio: Boolean(this.audioTrack) };
  }

  /** Starts to encode. `failed` is called when an encoder fails, `ended` when the user ends the capture. */
  async start({ failed, ended }) {
    const { video, audio } = this.setting;
    if (this.audioTrack && audio.codec === "aac" && !audio.native) await needAac();
    const { width, height } = this.videoTrack?.getSettings() ?? {};
    const { channelCount, sampleRate } = this.audioTrack?.getSettings() ?? {};
    this.sink(describe({
      video: this.videoTrack && { ...video, width: video.width ?? width, height: video.height ?? height },
      audio: this.audioTrack && { ...audio, rate: sampleRate, channels: channelCount },
    }));
    if (this.videoTrack) this.#encode("video", this.#videoSource(video));
    if (this.audioTrack) this.#encode("audio", this.#audioSource(audio));
    for (const { source } of this.#encodings) source.errorPromise.catch(failed);
    await Promise.all(this.#encodings.map(({ output }) => output.start()));
    this.videoTrack?.addEventListener("ended", ended);
  }

  #encode(kind, source) {
    const add = kind === "video" ? "addVideoTrack" : "addAudioTrack";
    this.#encodings.push(new Encoding(source, (output) => output[add](source)));
  }

  #videoSource({ codec, bitrate, gop, fps, width, height }) {
    return new MediaStreamVideoTrackSource(this.videoTrack, {
      codec,
      quality: new Quality({ bitrate }),
      keyFrameInterval: gop,
      sizeChangeBehavior: "contain",
      transform: width ? { width, height } : undefined,
      onEncodedPacket: (packet, meta) => this.#packet("video", codec, packet, meta),
    }, { frameRate: fps, timestampBase: "unix" });
  }

  #audioSource({ codec, bitrate }) {
    return new MediaStreamAudioTrackSource(this.audioTrack, {
      codec,
      quality: new Quality({ bitrate }),
      onEncodedPacket: (packet, meta) => this.#packet("audio", codec, packet, meta),
    }, { timestampBase: "unix" });
  }

  #packet(kind, codec, packet, meta) {
    const time = Math.max(0, (packet.timestamp - this.origin) * 1000);
    if (meta?.decoderConfig) {
      const config = configTag(kind, codec, meta.decoderConfig, packet, time);
      if (config) this.sink(config);
    }
    this.sink(frameTag(kind, codec, packet, time, time));
  }

  async stop() {
    this.stream.getTracks().forEach((track) => track.stop());
    await Promise.allSettled(this.#encodings.map(({ output }) => output.cancel()));
  }
}
