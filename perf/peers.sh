#!/usr/bin/env bash
# The cost of fan-out compared with other servers, in turn, in one run on one machine: viewers of one stream by
# HTTP-FLV.
#
#   SRS=…/objs/srs NGINX_FLV=…/nginx ZLM=…/MediaServer perf/peers.sh
#   VIEWERS=2000 FLUSHES="0ms 100ms 350ms" KBPS=1000 perf/peers.sh
#
# Servers that are not given are left out. SRS merges writes over `mw_latency` and ZLMediaKit over
# `mergeWriteMS`; both are set to the row's flush, but SRS to at least 20 ms: with `mw_latency 0` it spins (72 %
# of a core for one viewer). nginx (with nginx-http-flv-module in it) sends data as it comes; it has one row. perf/lib.sh lists more settings.
. "$(dirname "$0")/lib.sh"

n=${VIEWERS:-1000}
flushes=${FLUSHES:-0ms 350ms}
file=$(clip "${KBPS:-1000}")
home=$PWD/$out/peers
mkdir -p "$home"

start_uringcast() {
  start_origin "$server_core" --loops 1 --flush "$1"
  url=http://$flv/live/perf.flv
}

start_srs() {
  local millis=${1%ms} push play
  push=$(free_port) play=$(free_port)
  cat >"$home/srs.conf" <<END
listen $push; max_connections 19000; daemon off; srs_log_tank console; pid $home/srs.pid; ff_log_dir $home;
http_server { enabled on; listen 127.0.0.1:$play; dir $home; }
stats { network 0; } heartbeat { enabled off; }
vhost __defaultVhost__ {
  tcp_nodelay on; min_latency $( ((millis == 0)) && echo on || echo off);
  play { gop_cache on; queue_length 10; mw_latency $((millis < 20 ? 20 : millis)); }
  http_remux { enabled on; mount [vhost]/[app]/[stream].flv; }
}
END
  launch "$server_core" "$home/srs.log" "$SRS" -c "$home/srs.conf"
  listening "$play" "$home/srs.log"
  rtmp=127.0.0.1:$push url=http://127.0.0.1:$play/live/perf.flv
}

start_zlm() {
  local push play
  push=$(free_port) play=$(free_port)
  cat >"$home/zlm.ini" <<END
[general]
mergeWriteMS=${1%ms}
[http]
port=$play
sslport=0
[rtmp]
port=$push
sslport=0
[rtsp]
port=0
sslport=0
[rtp_proxy]
port=0
[shell]
port=0
[hook]
enable=0
[protocol]
enable_hls=0
enable_mp4=0
END
  launch "$server_core" "$home/zlm.log" "$ZLM" -c "$home/zlm.ini" -t 1 -l 3
  listening "$play" "$home/zlm.log"
  rtmp=127.0.0.1:$push url=http://127.0.0.1:$play/live/perf.live.flv
}

servers=uringcast
[[ -z ${SRS:-} ]] || servers+=" srs"
[[ -z ${ZLM:-} ]] || servers+=" zlm"
for _ in $(seq "$rounds"); do
  for flush in $flushes; do
    for one in $servers; do
      "start_$one" "$flush"
      start_publisher "$file"
      measure "$flush" "$one" "$n" --ramp $((n / 500 + 1)) --protocol http-flv "$url"
      stop
    done
  done
  [[ -n ${NGINX_FLV:-} ]] || continue
  start_nginx_flv
  start_publisher "$file"
  measure "as it comes" nginx "$n" --ramp $((n / 500 + 1)) --protocol http-flv "$url"
  stop
done

heading
echo "$n viewers; the verdict is the generator's: every viewer at least 99 % of the bytes"
echo
echo "| flush | server | CPU-s per GB | % of a core | latency p50 / p99 | first keyframe p50 / p99 | user memory a viewer | failed runs |"
echo "|---|---|---|---|---|---|---|---|"
awk -F'\t' '!seen[$1, $2]++ { print $1 "\t" $2 }' "$results" | sort | while IFS=$'\t' read -r row what; do
  column() { numbers "$row" "$what" "$1"; }
  # Others do not relay the publisher's stamps.
  latency="$(column 7 | median %.0f) / $(column 8 | median %.0f) ms"
  [[ $latency != "0 / 0 ms" ]] || latency=-
  printf '| %s | %s | %s | %s | %s | %s / %s ms | %s B | %s |\n' "$row" "$what" "$(column 3 | spread %.2f)" \
    "$(column 9 | median %.0f)" "$latency" \
    "$(column 5 | median %.1f)" "$(column 6 | median %.0f)" "$(column 4 | median %.0f)" "$(failures "$row" "$what")"
done
