// The page's FLV, without a browser: ffprobe reads what it writes, and it reads what ffmpeg writes.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  DecodeOrder, FlvReader, audioConfig, audioFrame, av1Config, classify, codecId, flvHeader, metadata, opusHead, setTime,
  videoConfig, videoFrame, vpcConfig,
} from "../../web/push/flv.js";
import { makeClip, scratch } from "./harness.mjs";

const hex = (bytes) => Buffer.from(bytes).toString("hex");

test("tags, byte by byte", () => {
  assert.equal(hex(flvHeader(true, true)), "464c56010500000009" + "00000000");
  assert.equal(hex(flvHeader(true, false)).slice(8, 10), "01");
  assert.equal(hex(videoConfig("avc", [1, 2], 0)), "09" + "000007" + "000000" + "00" + "000000" + "1700000000" + "0102" + "00000012");
  const frame = videoFrame("avc", { data: Uint8Array.of(9), key: false, dts: 0x01020304, pts: 0x01020304 + 40 });
  assert.equal(hex(frame).slice(8, 16), "02030401", "the upper bits of the time follow it");
  assert.equal(hex(frame).slice(22, 34), "270100002809");
  const early = videoFrame("avc", { data: Uint8Array.of(9), key: true, dts: 40, pts: 39 });
  assert.equal(hex(early).slice(22, 32), "1701ffffff", "a negative composition time");
  assert.equal(hex(videoFrame("hevc", { data: [7], key: true, dts: 0, pts: 2 })).slice(22, 40), "91" + "68766331" + "000002" + "07");
  assert.equal(hex(videoFrame("vp9", { data: [7], key: false, dts: 0, pts: 0 })).slice(22, 34), "a1" + "76703039" + "07");
  assert.equal(hex(audioConfig("aac", [0x12, 0x10], 0)).slice(22, 30), "af001210");
  assert.equal(audioConfig("mp3", null, 0), null);
  assert.equal(hex(audioFrame("opus", { data: [5], dts: 0 })).slice(22, 34), "91" + "4f707573" + "05");
  assert.equal(hex(vpcConfig("vp09.00.31.08")), "01000000" + "001f82" + "010101" + "0000");
  // A temporal delimiter, a sequence header of two bytes, a frame.
  const unit = Uint8Array.of(0x12, 0, 0x0a, 2, 0xab, 0xcd, 0x32, 1, 0xff);
  assert.equal(hex(av1Config("av01.0.05M.08", unit)), "8105" + "0c00" + "0a02abcd");
  assert.equal(hex(av1Config("av01.1.13H.10", unit)), "812d" + "c000" + "0a02abcd");
  assert.equal(av1Config("av01.0.05M.08", unit.slice(6)), null);
  assert.equal(opusHead(2, 48000).length, 19);
  assert.equal(codecId("avc"), 7);
  assert.equal(codecId("opus"), 0x4f707573);
  assert.throws(() => audioFrame("aac", { data: new Uint8Array(1 << 24), dts: 0 }), /does not fit/);
});

test("tags are classified", () => {
  const cases = [
    [videoConfig("avc", [1], 5), { kind: "video", time: 5, key: false, config: true }],
    [videoConfig("vp9", [1], 5), { kind: "video", time: 5, key: false, config: true }],
    [videoFrame("vp9", { data: [1], key: true, dts: 6, pts: 6 }), { kind: "video", time: 6, key: true, config: false }],
    [audioConfig("opus", [1], 0), { kind: "audio", time: 0, key: false, config: true }],
    [audioFrame("aac", { data: [1], dts: 0xfffffff0 }), { kind: "audio", time: 0xfffffff0, key: false, config: false }],
    [audioFrame("mp3", { data: [1], dts: 1 }), { kind: "audio", time: 1, key: false, config: false }],
    [metadata({ width: 1 }), { kind: "script", time: 0, key: false, config: true }],
  ];
  for (const [bytes, expected] of cases) assert.deepEqual(classify(bytes), expected);
});

test("a file of ffmpeg's, split anywhere, gives the same tags; together they are a file again", () => {
  const folder = scratch();
  const bytes = new Uint8Array(readFileSync(makeClip(join(folder, "clip.flv"), 2)));
  const whole = new FlvReader().push(bytes);
  assert.ok(whole.length > 100);
  for (const piece of [1, 7, 1000, 65536]) {
    const reader = new FlvReader();
    const tags = [];
    for (let at = 0; at < bytes.length; at += piece) tags.push(...reader.push(bytes.subarray(at, at + piece)));
    assert.equal(tags.length, whole.length);
    assert.ok(tags.every((tag, index) => Buffer.compare(tag, whole[index]) === 0), `pieces of ${piece}`);
  }
  const file = join(folder, "again.flv");
  writeFileSync(file, Buffer.concat([flvHeader(true, true), ...whole]));
  const said = spawnSync("ffprobe", ["-v", "error", "-count_packets", "-show_entries", "stream=codec_name,nb_read_packets",
    "-of", "csv=p=0", file], { encoding: "utf8" });
  assert.equal(said.stderr, "");
  assert.match(said.stdout, /h264,50\naac,\d+/);
  assert.throws(() => new FlvReader().push(new Uint8Array(20)), /not an FLV/);
});

test("decoding times", () => {
  const run = (times, depth) => {
    const order = new DecodeOrder(depth);
    return [...times.flatMap((pts) => order.push({ pts })), ...order.flush()].map(({ pts, dts }) => [pts, dts]);
  };
  // I0 P3 B1 B2 P6 B4 B5: displayed in the order of their numbers.
  const order = [0, 120, 40, 80, 240, 160, 200];
  const expected = [[0, -40], [120, 0], [40, 40], [80, 80], [240, 120], [160, 160], [200, 200]];
  assert.deepEqual(run(order, 4), expected);
  assert.deepEqual(run(order, 16), expected);
  assert.deepEqual(run([0, 40, 80], 16), [[0, 0], [40, 40], [80, 80]]);
  assert.deepEqual(run([5, 6], 0), [[5, 5], [6, 6]]);
  const deep = Array.from({ length: 200 }, (_, i) => (i % 4 === 0 ? i + 3 : i - 1) * 40);
  let before = -Infinity;
  for (const [pts, dts] of run(deep, 16)) {
    assert.ok(pts >= dts, "decoded before it is shown");
    assert.ok(dts >= before, "decoding times never step back");
    before = dts;
  }
});

test("a time is written in 24 and 8 bits", () => {
  const bytes = audioFrame("aac", { data: [1], dts: 0 });
  setTime(bytes, 0x12345678);
  assert.equal(classify(bytes).time, 0x12345678);
  setTime(bytes, 2 ** 32 + 5);
  assert.equal(classify(bytes).time, 5);
});
