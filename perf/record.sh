#!/usr/bin/env bash
# What recording costs: an origin of one loop that takes streams by RTMP, without and with --record flv,hls,fmp4,
# alternately. The difference is the recording.
#
#   perf/record.sh                                   8 streams of 1 Mbps; 3 of 20 Mbps
#   STREAMS="1x4000 20x1000" perf/record.sh          COUNTxKBPS
#   PROFILE=1 perf/record.sh                         and where the time goes, by perf, in $OUT/record-*.txt
#
# CPU is user and system time of all the process's threads, the kernel's workers for its files among them. What is
# recorded is measured by what the FLV files grow by. DATA is the folder that is recorded to, on the disk that is to be
# measured. More that can be set is in perf/lib.sh.
. "$(dirname "$0")/lib.sh"

cases=${STREAMS:-8x1000 3x20000}
data=${DATA:-$out/recorded}

memory() { awk '/^RssAnon/ { print $2 * 1024 }' "/proc/$pid/status"; }
written() { awk '/^write_bytes/ { print $2 }' "/proc/$pid/io"; }
recorded() { find "$data/flv" -name index.flv -printf '%s\n' 2>/dev/null | awk '{ n += $1 } END { print n + 0 }'; }

# sample: CPU-seconds, bytes of memory, bytes written, bytes recorded, of now.
sample() { echo "$(cpu "$pid") $(memory) $(written) $(recorded)"; }

# take CASE WHAT: one run, one line of results: CPU-seconds a second, memory, bytes written, bytes recorded.
take() {
  local before after record=none
  [[ $2 == none ]] || record=flv,hls,fmp4
  rm -rf "$data"
  start_origin "$server_core" --loops 1 --data "$data"
  start_publisher "$(clip "${1#*x}")" --streams "${1%x*}"
  sleep 3 # the first segments are there
  before=$(sample)
  [[ -z ${PROFILE:-} || $2 == none ]] || perf record -q -e cpu-clock -F 499 -g -p "$pid" -o "$out/record-$1.data" -- \
    sleep "$duration" &
  sleep "$duration"
  after=$(sample)
  stop
  awk -v r="$1" -v w="$2" -v s="$duration" -v b="$before" -v a="$after" 'BEGIN {
    split(b, x, " "); split(a, y, " ")
    printf "%s\t%s\t%.4f\t%.0f\t%.0f\t%.0f\n", r, w, (y[1] - x[1]) / s, y[2], y[3] - x[3], y[4] - x[4] }' >>"$results"
  tail -n 1 "$results" >&2
  [[ -z ${PROFILE:-} || $2 == none ]] ||
    perf report -i "$out/record-$1.data" --no-children -g none --stdio >"$out/record-$1.txt" 2>/dev/null
}

for case in $cases; do
  for _ in $(seq "$rounds"); do
    take "$case" none
    take "$case" all
  done
done
rm -rf "$data"

# pairs CASE: what the rounds of a case without and with recording have, side by side.
pairs() { paste <(awk -F'\t' -v r="$1" '$1 == r && $2 == "none"' "$results") <(awk -F'\t' -v r="$1" '$1 == r && $2 == "all"' "$results"); }

heading
echo "| streams x kbit/s | CPU-s per GB of stream | % of a core more | memory more, a stream | written per byte of stream |"
echo "|---|---|---|---|---|"
for case in $cases; do
  printf '| %s | %s | %s | %s MB | %s |\n' "$case" \
    "$(pairs "$case" | awk -F'\t' -v s="$duration" '$12 > 0 { print ($9 - $3) * s * 1e9 / $12 }' | spread %.1f)" \
    "$(pairs "$case" | awk -F'\t' '{ print ($9 - $3) * 100 }' | spread %.1f)" \
    "$(pairs "$case" | awk -F'\t' -v n="${case%x*}" '{ print ($10 - $4) / n / 1e6 }' | spread %.1f)" \
    "$(pairs "$case" | awk -F'\t' '$12 > 0 { print $11 / $12 }' | spread %.1f)"
done
