// HLS plays on in a browser while the disk of the recordings is full, and while it hangs. It needs the right to mount a
// disk. DISK_SECONDS: how long each is watched.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Browser, Publisher, Server, plays, scratch } from "./harness.mjs";

const SECONDS = Number(process.env.DISK_SECONDS ?? 20);
const STEP = 5;
const PATIENCE_MS = 30_000;

const run = (program, ...args) => spawnSync(program, args, { stdio: "ignore" }).status === 0;

/** A file system of its own. */
class Disk {
  static mount(...args) {
    const disk = new Disk();
    disk.home = scratch();
    disk.mounted = run("mount", ...args, disk.home);
    return disk;
  }

  static tmpfs() {
    return Disk.mount("-t", "tmpfs", "-o", "size=16m", "tmpfs");
  }

  /** One that can be frozen. */
  static ext4() {
    const folder = scratch();
    const image = join(folder, "image");
    writeFileSync(image, "");
    truncateSync(image, 64 << 20);
    const made = run("mkfs.ext4", "-q", "-F", image);
    const disk = Disk.mount("-o", "loop", made ? image : "none");
    disk.folder = folder;
    return disk;
  }

  fill() {
    try {
      writeFileSync(join(this.home, "ballast"), Buffer.alloc(20 << 20));
    } catch (error) {
      assert.equal(error.code, "ENOSPC");
    }
  }

  free() {
    rmSync(join(this.home, "ballast"));
  }

  freeze() {
    assert.ok(run("fsfreeze", "-f", this.home), "the disk freezes");
  }

  thaw() {
    run("fsfreeze", "-u", this.home);
  }

  leave() {
    if (this.mounted) run("umount", "-l", this.home);
    for (const folder of [this.home, this.folder]) if (folder) rmSync(folder, { recursive: true, force: true });
  }
}

let browser;

before(async () => {
  browser = await Browser.start();
});

after(() => browser?.stop());

/** Waits for a metric of the HLS recording. */
async function metric(server, name, check) {
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    const answer = await fetch(server.url("metrics", server.addresses.admin));
    const value = Number(new RegExp(`^${name}\\{kind="hls"\\} (\\S+)`, "m").exec(await answer.text())?.[1] ?? 0);
    if (check(value)) return;
    assert.ok(Date.now() < until, `${name} is still ${value}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

async function watched(server, { trouble, relief, symptom }) {
  const publisher = new Publisher(server, "live/disk");
  try {
    const written = "uringcast_recorded_segments_total";
    await metric(server, written, (count) => count >= 3);
    const page = await browser.page(server.url("play.html?stream=live/disk"));
    await plays(page);
    trouble();
    for (let seconds = 0; seconds < SECONDS; seconds += STEP) {
      await plays(page, { seconds: STEP, frames: STEP * 20 });
    }
    await metric(server, symptom, (count) => count > 0);
    relief();
    await metric(server, symptom, (count) => count === 0);
    await plays(page);
    assert.deepEqual(page.errors, [], "nothing on the console");
    await page.context().close();
  } finally {
    await publisher.stop();
  }
}

const CASES = [
  { name: "full", make: Disk.tmpfs, trouble: "fill", relief: "free", symptom: "uringcast_recordings_failing" },
  { name: "frozen", make: Disk.ext4, trouble: "freeze", relief: "thaw", symptom: "uringcast_recordings_stalled" },
];

for (const { name, make, trouble, relief, symptom } of CASES) {
  test(`HLS plays on while the disk is ${name}`, async (t) => {
    const disk = make();
    if (!disk.mounted) {
      disk.leave();
      return t.skip("no right to mount a disk");
    }
    let server;
    try {
      server = await Server.start([], { URINGCAST_RECORDING__MIN_FREE: "0" }, join(disk.home, "data"));
      await watched(server, { trouble: () => disk[trouble](), relief: () => disk[relief](), symptom });
    } finally {
      disk.thaw();
      await server?.stop();
      disk.leave();
    }
  });
}
