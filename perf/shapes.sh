#!/usr/bin/env bash
# Other kinds of load than many viewers of one stream by HTTP-FLV, one per row:
#
#   1m, 4m          2,000 viewers of 1 Mbps, and 500 of 4 Mbps, of one stream
#   http, ws, rtmp  5,000 viewers by HTTP-FLV, by WebSocket-FLV and by RTMP, alternately
#   loops-1, -2     5,000 viewers on one loop and on two, each with all cores (the generator's among them)
#   streams-100     100 streams of 1 Mbps with 20 viewers each; ingest is part of the cost
#   streams-1000    1,000 streams of 200 kbps with 20 viewers each
#   storm           20,000 viewers that arrive within 6 seconds
#   restart         20,000 viewers that wait for the publisher, as after a restart: all begin at once
#   idle            5,000 streams that were published and are silent: % of a core
#
#   SHAPES="http ws" perf/shapes.sh
#   SHAPES="1m streams-100 4m" FLUSH=40ms NGINX_FLV=/path/to/nginx perf/shapes.sh
#
# NGINX_FLV is an nginx with nginx-http-flv-module; the shapes of the second line are then measured with it as well.
# perf/lib.sh lists more settings.
. "$(dirname "$0")/lib.sh"

shapes=${SHAPES:-1m 4m http ws rtmp loops-1 loops-2 streams-100 streams-1000 storm restart idle}
file=$(clip 1000)
flush=${FLUSH:-350ms}

# serve WHAT: starts the origin or nginx: sets pid, rtmp and url, in which perf is the stream's name.
serve() {
  if [[ $1 == nginx ]]; then start_nginx_flv; return; fi
  start_origin "$server_core" --loops 1 --flush "$flush"
  url=http://$flv/live/perf.flv
}

# shape SHAPE [WHAT]
shape() {
  local what=${2:-server} low streams
  case $1 in
    1m | 4m)
      low=$(clip "$((${1%m} * 1000))")
      serve "$what"
      start_publisher "$low"
      measure "$1" "$what" "$((2000 / ${1%m}))" --ramp 2 --protocol http-flv "$url"
      ;;
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
      streams=${1#streams-}
      low=$(clip "$((streams > 100 ? 200 : 1000))")
      serve "$what"
      start_publisher "$low" --streams "$streams" --prefix s
      measure "$1" "$what" "$((20 * streams))" --ramp "$((streams / 50))" --streams "$streams" \
        --protocol http-flv "${url/perf/s{\}}"
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
  for one in $shapes; do
    shape "$one"
    case $one in 1m | 4m | streams-100) [[ -z ${NGINX_FLV:-} ]] || shape "$one" nginx ;; esac
  done
done

heading
echo "| shape | by | CPU-s per GB | uringcast's to it | % of a core | latency p50 / p99 | first keyframe p50 / p99 | failed runs |"
echo "|---|---|---|---|---|---|---|---|"
for one in $shapes; do
  for what in server nginx; do
    [[ $(numbers "$one" $what 3) ]] || continue
    printf '| %s | %s | %s | %s | %s | %s / %s ms | %s / %s ms | %s |\n' "$one" $what \
      "$(numbers "$one" $what 3 | spread %.2f)" "$(ratios "$one" server $what | spread %.2f)" \
      "$(numbers "$one" $what 9 | spread %.1f)" \
      "$(numbers "$one" $what 7 | median %.0f)" "$(numbers "$one" $what 8 | median %.0f)" \
      "$(numbers "$one" $what 5 | median %.1f)" "$(numbers "$one" $what 6 | median %.0f)" "$(failures "$one" $what)"
  done
done
