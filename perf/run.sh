#!/usr/bin/env bash
# What fan-out costs: the origin beside the raw sender, alternately, in one run on one machine.
#
#   perf/run.sh                                    1000 and 5000 viewers; --flush 0ms, 100ms, 350ms; 3 rounds
#   ROUNDS=5 VIEWERS="2000" FLUSHES="100ms" DURATION=30 perf/run.sh
#
# The server has core SERVER_CORE to itself, the generator and the publisher share LOAD_CORE. The stream is
# 1 Mbps: H.264 at 25 fps, GOP 2 s, AAC. CPU is the server's user and system time while all viewers are there;
# on loopback the receiver's TCP work is part of it, for the server and for the raw sender alike. The generator
# reads as soon as bytes come. Results stay in OUT.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-3}
viewers=${VIEWERS:-1000 5000}
flushes=${FLUSHES:-0ms 100ms 350ms}
duration=${DURATION:-20}
server_core=${SERVER_CORE:-0}
load_core=${LOAD_CORE:-1}
out=${OUT:-target/perf}
target=${CARGO_TARGET_DIR:-target}/release
server=${SERVER:-$target/uringcast}

mkdir -p "$out"
results=$out/results.tsv
clip=$out/clip-1mbps.flv
: >"$results"

for tool in ffmpeg taskset; do
  command -v "$tool" >/dev/null || { echo "perf/run.sh needs $tool" >&2; exit 1; }
done
ulimit -n "$(ulimit -Hn)"
files=$(ulimit -n)

running=()
stop() {
  local pid
  for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${running[@]}"; do wait "$pid" 2>/dev/null || true; done
  running=()
}
trap stop EXIT

# ready LOG NAME: the address that the ready line in LOG gives for NAME.
ready() {
  local _ address
  for _ in $(seq 100); do
    address=$(sed -n "s/^ready .*\\b$2=\\([^ ]*\\).*/\\1/p" "$1" | head -n 1)
    [[ -n $address ]] && { echo "$address"; return; }
    sleep 0.1
  done
  echo "no ready line with $2= in $1:" >&2
  tail -n 20 "$1" >&2
  return 1
}

# measure WHAT FLUSH N ADDRESS PID: one run of the generator, one line of results.
measure() {
  local what=$1 flush=$2 n=$3 address=$4 pid=$5 json verdict=ok
  json=$(taskset -c "$load_core" "$target/examples/fanout" "http://$address/live/perf.flv" --viewers "$n" \
    --ramp "$((n / 1000 + 1))" --duration "$duration" --server-pid "$pid" --json) || verdict=FAILED
  echo "$json" >>"$out/reports.jsonl"
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$what" "$flush" "$n" \
    "$(field cpu_seconds_per_gb "$json")" "$(field rss_bytes_per_viewer "$json")" \
    "$(keyframe p50 "$json")" "$(keyframe p99 "$json")" "$(field served_percent "$json")" "$verdict" |
    tee -a "$results"
}
field() { sed -n "s/.*\"$1\":\\([-0-9.e]*\\).*/\\1/p" <<<"$2"; }
keyframe() { sed -n "s/.*\"first_keyframe_ms\":{[^}]*\"$1\":\\([-0-9.e]*\\).*/\\1/p" <<<"$2"; }

run_server() {
  local flush=$1 n=$2 log=$out/server.log pid rtmp flv publisher
  taskset -c "$server_core" "$server" origin --loops 1 --rtmp 127.0.0.1:0 --flv 127.0.0.1:0 \
    --web 127.0.0.1:0 --admin 127.0.0.1:0 --flush "$flush" >/dev/null 2>"$log" &
  pid=$!
  running+=("$pid")
  rtmp=$(ready "$log" rtmp)
  flv=$(ready "$log" flv)
  taskset -c "$load_core" ffmpeg -nostdin -loglevel error -re -stream_loop -1 -i "$clip" -c copy -f flv \
    "rtmp://$rtmp/live/perf" >/dev/null 2>"$out/publisher.log" &
  publisher=$!
  running+=("$publisher")
  sleep 4
  kill -0 "$publisher" 2>/dev/null || { echo "the publisher ended:" >&2; cat "$out/publisher.log" >&2; exit 1; }
  measure server "$flush" "$n" "$flv" "$pid"
  stop
}

run_baseline() {
  local flush=$1 n=$2 log=$out/baseline.log pid address
  taskset -c "$server_core" "$target/examples/raw_sender" "$clip" --flush "$flush" >/dev/null 2>"$log" &
  pid=$!
  running+=("$pid")
  address=$(ready "$log" listen)
  sleep 3
  measure baseline "$flush" "$n" "$address" "$pid"
  stop
}

# spread WHAT FLUSH N COLUMN: median, minimum and maximum over the rounds.
spread() {
  awk -F'\t' -v w="$1" -v f="$2" -v n="$3" -v c="$4" '$1 == w && $2 == f && $3 == n { print $c }' "$results" |
    sort -g | awk '{ v[NR] = $1 } END {
      if (NR == 0) { print "- - -"; exit }
      m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
      print m, v[1], v[NR] }'
}

# Ratios are taken round by round: neighbours in time, so that a busy minute hits both.
ratios() {
  awk -F'\t' -v f="$1" -v n="$2" '$2 == f && $3 == n && $1 == "server" { s[++i] = $4 }
    $2 == f && $3 == n && $1 == "baseline" { b[++j] = $4 }
    END { for (k = 1; k <= i && k <= j; k++) if (b[k] > 0) print s[k] / b[k] }' "$results" |
    sort -g | awk '{ v[NR] = $1 } END {
      if (NR == 0) { print "-"; exit }
      m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
      printf "%.2f (%.2f-%.2f)\n", m, v[1], v[NR] }'
}

if [[ ! -s $clip ]]; then
  ffmpeg -nostdin -loglevel error -y \
    -f lavfi -i "testsrc2=size=640x360:rate=25:duration=20" \
    -f lavfi -i "sine=frequency=440:sample_rate=44100:duration=20" \
    -c:v libx264 -preset veryfast -pix_fmt yuv420p -bf 0 -g 50 -keyint_min 50 -sc_threshold 0 \
    -b:v 930k -minrate 930k -maxrate 930k -bufsize 930k -x264-params nal-hrd=cbr \
    -c:a aac -b:a 64k -f flv "$clip.part"
  mv "$clip.part" "$clip"
fi
cargo build --release --bins --example fanout --example raw_sender
: >"$out/reports.jsonl"

echo "kernel $(uname -r), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $rounds rounds of $duration s"
for flush in $flushes; do
  for n in $viewers; do
    if ((n + 64 > files)); then
      echo "left out: $n viewers, the limit of open files is $files" >&2
      continue
    fi
    for _ in $(seq "$rounds"); do
      run_server "$flush" "$n"
      run_baseline "$flush" "$n"
    done
  done
done

printf '\n| flush | viewers | CPU-s per GB (min-max) | raw sender (min-max) | ratio (min-max) | RSS a viewer | first keyframe p50 / p99 | failed runs |\n'
printf '|---|---|---|---|---|---|---|---|\n'
for flush in $flushes; do
  for n in $viewers; do
    read -r cost low high < <(spread server "$flush" "$n" 4)
    read -r base base_low base_high < <(spread baseline "$flush" "$n" 4)
    read -r rss _ < <(spread server "$flush" "$n" 5)
    read -r p50 _ < <(spread server "$flush" "$n" 6)
    read -r p99 _ < <(spread server "$flush" "$n" 7)
    failed=$(awk -F'\t' -v f="$flush" -v n="$n" '$2 == f && $3 == n && $9 != "ok" { print $1 }' "$results" |
      sort | uniq -c | awk '{ printf "%s%s %s", (NR > 1 ? ", " : ""), $2, $1 }')
    printf '| %s | %s | %.3g (%.3g-%.3g) | %.3g (%.3g-%.3g) | %s | %s B | %.3g / %.3g ms | %s |\n' "$flush" "$n" \
      "$cost" "$low" "$high" "$base" "$base_low" "$base_high" "$(ratios "$flush" "$n")" "$rss" "$p50" "$p99" \
      "${failed:-none}"
  done
done
