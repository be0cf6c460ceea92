#!/usr/bin/env bash
# Other kinds of load than many viewers of one stream by HTTP-FLV, one per row:
#
#   http, ws, rtmp  5,000 viewers by HTTP-FLV, by WebSocket-FLV and by RTMP, alternately
#   loops-1, -2     5,000 viewers on one loop and on two, each with all cores (the generator's among them)
#   streams-100     100 streams of 1 Mbps with 20 viewers each; ingest is part of the cost
#   streams-1000    1,000 streams of 200 kbps with 20 viewers each
#   storm           20,000 viewers that arrive within 6 seconds
#   restart         20,000 viewers that wait for the publisher, as after a restart: all begin at once
#   idle            5,000 streams that were published and are silent: % of a core
#
#   SHAPES="http ws" perf/shapes.sh
#
# perf/lib.sh lists more settings.
. "$(dirname "$0")/lib.sh"

shapes=${SHAPES:-http ws rtmp loops-1 loops-2 streams-100 streams-1000 storm restart idle}
file=$(clip 1000)
flush=${FLUSH:-350ms}

shape() {
  case $1 in
    http | ws)
      start_origin "$server_core" --loops 1 --flush "$flush"
      start_publisher "$file"
      measure "$1" server 5000 --ramp 6 "$1://$flv/live/perf.flv"
      ;;
    rtmp)
      start_origin "$server_core" --loops 1 --flush "$flush"
      start_publisher "$file"
      measure "$1" server 5000 --ramp 6 "rtmp://$rtmp/live/perf"
      ;;
    loops-*)
      start_origin "$server_core,$load_core" --loops "${1#loops-}" --flush "$flush"
      start_publisher "$file"
      measure "$1" server 5000 --ramp 6 "http://$flv/live/perf.flv"
      ;;
    streams-*)
      local streams=${1#streams-} low
      low=$(clip "$((streams > 100 ? 200 : 1000))")
      start_origin "$server_core" --loops 1 --flush "$flush"
      start_publisher "$low" --streams "$streams" --prefix s
      measure "$1" server "$((20 * streams))" --ramp "$((streams / 50))" --streams "$streams" \
        "http://$flv/live/s{}.flv"
      ;;
    storm)
      start_origin "$server_core" --loops 1 --flush "$flush"
      start_publisher "$file"
      measure "$1" server 20000 --ramp 6 "http://$flv/live/perf.flv"
      ;;
    restart)
      start_origin "$server_core" --loops 1 --flush "$flush" --wait 30s
      start_publisher "$file" --after 8
      measure "$1" server 20000 --ramp 6 "http://$flv/live/perf.flv"
      ;;
    idle)
      export URINGCAST_ORIGIN__SILENCE=10m
      start_origin "$server_core" --loops 1 --flush "$flush"
      unset URINGCAST_ORIGIN__SILENCE
      start_publisher "$file" --streams 5000 --prefix s --idle
      local before after
      before=$(cpu "$pid")
      sleep "$duration"
      after=$(cpu "$pid")
      awk -v b="$before" -v a="$after" -v s="$duration" \
        'BEGIN { printf "idle\tserver\t0\t0\t0\t0\t0\t0\t%.2f\t0\t100\tok\n", 100 * (a - b) / s }' | tee -a "$results" >&2
      ;;
  esac
  stop
}

for _ in $(seq "$rounds"); do
  for one in $shapes; do shape "$one"; done
done

heading
echo "| shape | CPU-s per GB | % of a core | latency p50 / p99 | first keyframe p50 / p99 | failed runs |"
echo "|---|---|---|---|---|---|"
for one in $shapes; do
  printf '| %s | %s | %s | %s / %s ms | %s / %s ms | %s |\n' "$one" "$(numbers "$one" server 3 | spread %.2f)" \
    "$(numbers "$one" server 9 | spread %.1f)" \
    "$(numbers "$one" server 7 | median %.0f)" "$(numbers "$one" server 8 | median %.0f)" \
    "$(numbers "$one" server 5 | median %.1f)" "$(numbers "$one" server 6 | median %.0f)" "$(failures "$one")"
done
