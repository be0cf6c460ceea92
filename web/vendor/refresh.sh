#!/usr/bin/env bash
# Fetches the pinned packages through npm, checks the files that it takes from them by hash and puts them here.
# One file is changed: in a browser without an import map a module names another by its address.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fetch() { # fetch PACKAGE VERSION: into ./package
  rm -rf package
  tar -xzf "$(npm pack --silent "$1@$2")"
}
take() { # take FILE AS SHA256
  echo "$3  package/$1" | sha256sum --check --quiet
  install -m 644 "package/$1" "$here/$2"
}

fetch mpegts.js 1.8.2
take dist/mpegts.js mpegts.js bda31748736a69cb610c2edf4623e633f1f4f47b5bda83668c8d287e51b0c3a8
take LICENSE LICENSE.Apache-2.0 58d1e17ffe5109a7ae296caafcadfdbe6a7d176f0bc4ab01e12a689b0499d8bd
take dist/mpegts.js.LICENSE.txt mpegts.js.LICENSE.txt dc4d5273f129801a2575dcb2649d5ad2ca06be1334c9be2a8f7929118e0e8668

fetch hls.js 1.7.4
take dist/hls.light.min.js hls.js 482cccb3a224554f64d8c2cf0d335dba4a3819bdb726afbfddfe15de4c277d82
take LICENSE hls.js.LICENSE.txt ca8773cf798c7ed997d4dd7c8e23c348699f8d5b7462636694cc14de6cda12db

fetch mediabunny 1.61.0
take dist/bundles/mediabunny.min.mjs mediabunny.js fa696c53494b6b09a8b310ec51e3c44a59e79513234fb832255a38c686162009
take LICENSE LICENSE.MPL-2.0 3f3d9e0024b1921b067d6f7f88deb4a60cbe7a78e76c64e3f1d7fc3b779b9d04

fetch @mediabunny/aac-encoder 1.59.0
sed -i 's|from"mediabunny"|from"./mediabunny.js"|g' package/dist/bundles/mediabunny-aac-encoder.min.mjs
take dist/bundles/mediabunny-aac-encoder.min.mjs aac-encoder.js c3e19fdac309df319e3b4f721b23d33d3eef0cdace9352cf4aea8c42eac51f11

(cd "$here" && sha256sum -- *.js)
