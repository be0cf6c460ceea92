#!/usr/bin/env bash
# The cost of recording: an origin of one loop that takes streams by RTMP, without and with --record
# flv,hls,fmp4, alternately. The difference is the cost.
#
#   perf/record.sh                                   8 streams of 1 Mbps; 3 of 20 Mbps
#   STREAMS="1x4000 20x1000" perf/record.sh          COUNTxKBPS
#   PROFILE=1 perf/record.sh                         and where the time goes, by perf, in $OUT/record-*.txt
#
# CPU is user and system time of all threads of the process, including the kernel's workers for its files. The
# second column leaves out the loops, which receive the streams: it is steadier on a machine that others use,
# but does not include the work of the loops to wake the recorder. SERVER=... selects the build; a build given
# by OTHER=... is measured in the same rounds. The amount recorded is the growth of the FLV files. DATA is the
# folder to record to, on the disk to be measured. perf/lib.sh lists more settings.
. "$(dirname "$0")/lib.sh"

cases=${STREAMS:-8x1000 3x20000}
data=${DATA:-$out/recorded}

memory() { awk '/^RssAnon/ { print $2 * 1024 }' "/proc/$pid/status"; }
written() { awk '/^write_bytes/ { print $2 }' "/proc/$pid/io"; }
recorded() { find "$data/flv" -name index.flv -printf '%s\n' 2>/dev/null | awk '{ n += $1 } END { print n + 0 }'; }

# aside: seconds of user and system time of all threads but the loops; helper threads that have ended count.
aside() {
  local task ticks=0 own
  for task in /proc/"$pid"/task/*; do
    [[ $(<"$task/comm") != loop-* ]] || { own=$(awk '{ sub(/.*\) /, ""); print $12 + $13 }' "$task/stat") && ((ticks += own)); }
  done
  awk -v all="$(cpu "$pid")" -v ticks="$ticks" -v hz="$(getconf CLK_TCK)" 'BEGIN { print all - ticks / hz }'
}

# sample: CPU-seconds, bytes of memory, bytes written, bytes recorded, CPU-seconds without the loops, so far.
sample() { echo "$(cpu "$pid") $(memory) $(written) $(recorded) $(aside)"; }

# take CASE WHAT: one run, one line of results: CPU-seconds a second, memory, bytes written, bytes recorded,
# CPU-seconds a second without the loops.
take() {
  local before after record=none server=$server
  [[ $2 == *none ]] || record=flv,hls,fmp4
  [[ $2 != other-* ]] || server=$OTHER
  rm -rf "$data"
  start_origin "$server_core" --loops 1 --data "$data"
  start_publisher "$(clip "${1#*x}")" --streams "${1%x*}"
  sleep 20 # as many segments as stay in memory are there
  before=$(sample)
  [[ -z ${PROFILE:-} || $2 != all ]] || perf record -q -e cpu-clock -F 499 -g -p "$pid" -o "$out/record-$1.data" -- \
    sleep "$duration" &
  sleep "$duration"
  after=$(sample)
  stop
  awk -v r="$1" -v w="$2" -v s="$duration" -v b="$before" -v a="$after" 'BEGIN {
    split(b, x, " "); split(a, y, " ")
    printf "%s\t%s\t%.4f\t%.0f\t%.0f\t%.0f\t%.4f\n", r, w, (y[1] - x[1]) / s, y[2], y[3] - x[3], y[4] - x[4],
      (y[5] - x[5]) / s }' >>"$results"
  tail -n 1 "$results" >&2
  [[ -z ${PROFILE:-} || $2 != all ]] ||
    perf report -i "$out/record-$1.data" --no-children -g none --stdio >"$out/record-$1.txt" 2>/dev/null
}

for case in $cases; do
  for _ in $(seq "$rounds"); do
    take "$case" none
    take "$case" all
    [[ -z ${OTHER:-} ]] || { take "$case" other-none && take "$case" other-all; }
  done
done
rm -rf "$data"

# pairs CASE [OTHER-]: the results of a case's rounds without and with recording, side by side.
pairs() { paste <(lines "$1" "${2}none") <(lines "$1" "${2}all"); }
lines() { awk -F'\t' -v r="$1" -v w="$2" '$1 == r && $2 == w' "$results"; }

# row CASE [OTHER-]: a line of the table.
row() {
  printf '| %s | %s | %s | %s | %s MB | %s |\n' "$1${2:+, the other build}" \
    "$(pairs "$1" "$2" | awk -F'\t' -v s="$duration" '$13 > 0 { print ($10 - $3) * s * 1e9 / $13 }' | spread %.1f)" \
    "$(pairs "$1" "$2" | awk -F'\t' -v s="$duration" '$13 > 0 { print ($14 - $7) * s * 1e9 / $13 }' | spread %.1f)" \
    "$(pairs "$1" "$2" | awk -F'\t' '{ print ($10 - $3) * 100 }' | spread %.1f)" \
    "$(pairs "$1" "$2" | awk -F'\t' -v n="${1%x*}" '{ print ($11 - $4) / n / 1e6 }' | spread %.1f)" \
    "$(pairs "$1" "$2" | awk -F'\t' '$13 > 0 { print $12 / $13 }' | spread %.1f)"
}

heading
echo "| streams x kbit/s | CPU-s per GB of stream | on other threads | % of a core more | memory more, a stream | written per byte of stream |"
echo "|---|---|---|---|---|---|"
for case in $cases; do
  row "$case" ""
  [[ -z ${OTHER:-} ]] || row "$case" other-
done
