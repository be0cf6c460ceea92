#!/usr/bin/env bash
# Fetches the pinned mpegts.js through npm, checks its hash and puts it here.
set -euo pipefail
version=1.8.2
sha256=bda31748736a69cb610c2edf4623e633f1f4f47b5bda83668c8d287e51b0c3a8

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent "mpegts.js@$version" >/dev/null
tar -xzf "mpegts.js-$version.tgz"
echo "$sha256  package/dist/mpegts.js" | sha256sum --check --quiet
install -m 644 package/dist/mpegts.js "$here/mpegts.js"
install -m 644 package/LICENSE "$here/LICENSE"
install -m 644 package/dist/mpegts.js.LICENSE.txt "$here/mpegts.js.LICENSE.txt"
echo "mpegts.js $version is in place"
