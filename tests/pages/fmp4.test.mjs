// Playlists and init segments, without a browser.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { mimeOf, parsePlaylist } from "../../web/lib/fmp4.js";
import { makeClip, scratch } from "./harness.mjs";

test("a media playlist", () => {
  const list = parsePlaylist(`#EXTM3U\r
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:2
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-MAP:URI="init.mp4"
#EXTINF:1.500,
segment_7.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI="init_2.mp4"
#EXTINF:2,title
segment_8.m4s
#EXT-X-ENDLIST
`);
  assert.deepEqual(list, {
    sequence: 7,
    ended: true,
    segments: [
      { number: 7, uri: "segment_7.m4s", map: "init.mp4", duration: 1.5 },
      { number: 8, uri: "segment_8.m4s", map: "init_2.mp4", duration: 2 },
    ],
  });
  assert.throws(() => parsePlaylist("<html>"), /not a playlist/);
  assert.deepEqual(parsePlaylist("#EXTM3U\n").segments, []);
});

test("a master playlist, with and without separate audio", () => {
  const sound = '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="a,b",DEFAULT=YES,URI="audio.m3u8"\n';
  const variant = '#EXT-X-STREAM-INF:BANDWIDTH=5,CODECS="avc1.4d401e,mp4a.40.2",AUDIO="audio"\nvideo.m3u8\n';
  assert.deepEqual(parsePlaylist(`#EXTM3U\n${sound}${variant}`).renditions, ["video.m3u8", "audio.m3u8"]);
  assert.deepEqual(parsePlaylist(`#EXTM3U\n${variant}`).renditions, ["video.m3u8"]);
});

test("codecs of init segments, as ffmpeg writes them", () => {
  const folder = scratch();
  const cases = [
    [[], /^video\/mp4; codecs="avc1\.42c0[0-9a-f]{2},mp4a\.40\.2"$/],
    [["-an"], /^video\/mp4; codecs="avc1\.6400[0-9a-f]{2}"$/, ["-c:v", "libx264"]],
    [["-vn"], /^audio\/mp4; codecs="mp4a\.40\.2"$/],
    [["-vn", "-ar", "48000", "-c:a", "libopus"], /^audio\/mp4; codecs="opus"$/],
    [["-an", "-tag:v", "hvc1"], /^video\/mp4; codecs="hvc1\.1\.6\.L60\.90"$/,
      ["-c:v", "libx265", "-x265-params", "log-level=none"]],
    [["-an"], /^video\/mp4; codecs="vp09\.00\.\d\d\.08"$/, ["-c:v", "libvpx-vp9"]],
  ];
  cases.forEach(([options, expected, video], index) => {
    const file = makeClip(join(folder, `${index}.mp4`), 1, [...options, "-movflags", "empty_moov"], video);
    assert.match(mimeOf(new Uint8Array(readFileSync(file)).buffer), expected);
  });
  assert.equal(mimeOf(new Uint8Array(40).buffer), null);
});
