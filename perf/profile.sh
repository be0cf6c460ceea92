#!/usr/bin/env bash
# Where the server's time goes while viewers watch: the top functions on standard output, and a flame graph.
#
#   perf/profile.sh                                  5,000 viewers of 1 Mbps, --flush 350ms
#   VIEWERS=20000 FLUSH=100ms RAMP=20 perf/profile.sh
#
# Needs perf (linux-perf), and inferno (cargo install inferno) for the flame graph, target/perf/flame.svg.
# Sampled by the CPU's clock: without hardware counters a sample falls at the end of a section with interrupts
# off, so that _raw_spin_unlock_irqrestore stands for all work under such locks, mostly waking threads.
DURATION=${DURATION:-10}
. "$(dirname "$0")/lib.sh"

n=${VIEWERS:-5000}
ramp=${RAMP:-$((n / 1000 + 1))}
data=$out/perf.data
command -v perf >/dev/null || { echo "perf/profile.sh needs perf: apt-get install linux-perf" >&2; exit 1; }

start_origin "$server_core" --loops 1 --flush "${FLUSH:-350ms}"
start_publisher "$(clip "${KBPS:-1000}")"
# The generator settles for a second after the ramp.
(sleep $((ramp + 2)) && exec perf record -q -g -F 999 -p "$pid" -o "$data" -- sleep $((duration - 2)) 2>/dev/null) &
recorder=$!
measure "profile" server "$n" --ramp "$ramp" "http://$flv/live/perf.flv"
wait "$recorder"
stop

heading
echo "| share | function |"
echo "|---|---|"
perf report -i "$data" --no-children -g none --percent-limit 1 2>/dev/null |
  awk '/^ +[0-9.]+%/ { print "| " $1 " | `" $NF "` |" }' | head -n 20
if command -v inferno-flamegraph >/dev/null; then
  perf script -i "$data" 2>/dev/null | inferno-collapse-perf 2>/dev/null |
    inferno-flamegraph --title "uringcast, $n viewers" >"$out/flame.svg"
  echo
  echo "flame graph: $out/flame.svg"
fi
