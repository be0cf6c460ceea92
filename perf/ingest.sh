#!/usr/bin/env bash
# The cost of ingest: the origin and the raw receiver, alternately, in one run on one machine; without viewers.
#
#   perf/ingest.sh                                   150 streams of 4 Mbps by RTMP, HTTP-FLV and WebSocket-FLV
#   STREAMS="50 200" PROTOCOLS=rtmp KBPS=1000 perf/ingest.sh
#
# perf/lib.sh lists more settings. Both receive the same bytes at the same pace into the kernel's default
# buffers; CPU is their user and system time. The longest round of the sender is shown: if it took longer than a
# frame's 40 ms, the sender had to wait for the receiver, or for its core.
. "$(dirname "$0")/lib.sh"

streams=${STREAMS:-150}
protocols=${PROTOCOLS:-rtmp http ws}
file=$(clip "${KBPS:-4000}")

# receive ROW WHAT ADDRESS FLAG…: one run of the publisher against pid, one line of results.
receive() {
  local row=$1 what=$2 address=$3 json verdict=ok
  read -r n protocol <<<"$row"
  shift 3
  json=$("${first[@]}" taskset -c "$load_core" "$target/examples/publisher" "$file" "$address" --streams "$n" \
    --as "$protocol" --measure "$pid" --duration "$duration" "$@" 2>"$out/publisher.log") || verdict=FAILED
  printf '%s\t%s\t%s\t%s\t%s\t%s\t\t\t\t\t\t%s\n' "$row" "$what" "$(field cpu_seconds_per_gb "$json")" \
    "$(field cpu_percent "$json")" "$(field mbps "$json")" "$(field late_ms "$json")" "$verdict" >>"$results"
  tail -n 1 "$results" >&2
}

start_receiver() {
  launch "$server_core" "$out/baseline.log" "$target/examples/raw_receiver"
  raw=$(ready "$out/baseline.log" listen)
}

for n in $streams; do
  for protocol in $protocols; do
    for _ in $(seq "$rounds"); do
      start_origin "$server_core" --loops 1
      if [[ $protocol == rtmp ]]; then address=$rtmp; else address=$flv; fi
      receive "$n $protocol" server "$address"
      stop
      start_receiver
      receive "$n $protocol" raw "$raw" --deaf
      stop
    done
  done
done

heading
echo "| streams | by | Mbit/s | CPU-s per GB | raw receiver | ratio | % of a core | sender's longest round | failed runs |"
echo "|---|---|---|---|---|---|---|---|---|"
for n in $streams; do
  for protocol in $protocols; do
    row="$n $protocol"
    printf '| %s | %s | %s | %s | %s | %s | %s | %s ms | %s |\n' $row "$(numbers "$row" server 5 | median %.0f)" \
      "$(numbers "$row" server 3 | spread %.2f)" "$(numbers "$row" raw 3 | spread %.2f)" \
      "$(ratios "$row" server raw | spread %.2f)" "$(numbers "$row" server 4 | median %.0f)" \
      "$(numbers "$row" server 6 | median %.0f)" "$(failures "$row")"
  done
done
