// From Mediabunny's packets to tags: shared by camera, screen and files.

import {
  audioConfig, audioFrame, av1Config, codecId, metadata, opusHead, videoConfig, videoFrame, vpcConfig,
} from "./flv.js";

/** The metadata of a stream, for the server and players. */
export function describe({ video, audio }) {
  return metadata({
    width: video?.width,
    height: video?.height,
    framerate: video?.fps,
    videocodecid: video && codecId(video.codec),
    videodatarate: video?.bitrate && video.bitrate / 1000,
    audiocodecid: audio && codecId(audio.codec),
    audiosamplerate: audio?.rate,
    stereo: audio ? audio.channels === 2 : undefined,
    hasVideo: Boolean(video),
    hasAudio: Boolean(audio),
    encoder: "uringcast push.html",
  });
}

const bytesOf = (source) => {
  if (!source) return null;
  return ArrayBuffer.isView(source)
    ? new Uint8Array(source.buffer, source.byteOffset, source.byteLength)
    : new Uint8Array(source);
};

/**
 * The configuration tag from WebCodecs' decoder configuration and the first packet; throws if these are not
 * enough.
 */
export function configTag(kind, codec, config, first, time) {
  let description = bytesOf(config.description);
  if (kind === "audio") {
    if (codec === "opus") description ??= opusHead(config.numberOfChannels, config.sampleRate);
    if (codec === "aac" && !description) throw new Error("the AAC comes without its configuration");
    return audioConfig(codec, description, time);
  }
  if (codec === "vp9") description ??= vpcConfig(config.codec);
  if (codec === "av1") description ??= av1Config(config.codec, first.data);
  if (!description) throw new Error(`the ${codec} comes without its configuration`);
  return videoConfig(codec, description, time);
}

/** A packet as a tag; `dts` and `pts` in milliseconds. */
export function frameTag(kind, codec, packet, dts, pts) {
  const { data } = packet;
  if (kind === "audio") return audioFrame(codec, { data, dts });
  return videoFrame(codec, { data, key: packet.type === "key", dts, pts });
}
