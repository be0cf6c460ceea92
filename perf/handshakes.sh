#!/usr/bin/env bash
# What arrivals by TLS cost: handshakes a second, CPU of each, and the latency of those who watch while many arrive.
#
#   perf/handshakes.sh                               500 viewers watch (plain, 1 Mbps), 2,000 arrive by TLS in a second
#   ARRIVING=5000 WATCHING=1000 perf/handshakes.sh
#
# Handshakes are full ones of TLS 1.3 with an ECDSA certificate (P-256), by `openssl s_time` from the other core: one
# after the other, so that the client limits their rate. perf/lib.sh lists more settings.
. "$(dirname "$0")/lib.sh"

watching=${WATCHING:-500} arriving=${ARRIVING:-2000}
file=$(clip "${KBPS:-1000}")
certificate

# watch ROW: the latency of the watchers for $duration seconds.
watch() {
  local json
  json=$("${first[@]}" taskset -c "$load_core" "$target/uringcast" stress --quiet --json --viewers "$watching" \
    --ramp 1 --duration "$duration" "http://$flv/live/perf.flv") || true
  printf '%s\t%s\t%s\t%s\n' "$1" "$(part latency_ms p50 "$json")" "$(part latency_ms p99 "$json")" \
    "$(field served_percent "$json")" >>"$results"
  tail -n 1 "$results" >&2
}

for _ in $(seq "$rounds"); do
  start_origin "$server_core" --loops 1 --flush "${FLUSH:-40ms}" --tls-cert "$out/tls.pem" --tls-key "$out/tls.key"
  start_publisher "$file"
  before=$(cpu "$pid")
  count=$(taskset -c "$load_core" openssl s_time -connect "$flv" -new -tls1_3 -time 5 2>/dev/null |
    awk '/connections in .* real seconds/ { print $1 }')
  awk -v n="$count" -v b="$before" -v a="$(cpu "$pid")" \
    'BEGIN { printf "handshakes\t%.0f\t%.3f\n", n / 5, (a - b) * 1000 / n }' >>"$results"
  tail -n 1 "$results" >&2
  watch alone
  watch arrivals &
  watcher=$!
  sleep 3
  json=$(taskset -c "$load_core" "$target/uringcast" stress --quiet --json --viewers "$arriving" --ramp 1 \
    --duration $((duration / 2)) --insecure "https://$flv/live/perf.flv") || true
  printf 'arrived\t%s\t%s\t%s\n' "$(part first_keyframe_ms p50 "$json")" "$(part first_keyframe_ms p99 "$json")" \
    "$(field served_percent "$json")" >>"$results"
  tail -n 1 "$results" >&2
  wait "$watcher"
  stop
done

column() { awk -F'\t' -v r="$1" -v c="$2" '$1 == r { print $c }' "$results" | spread "$3"; }
heading
echo "| | |"
echo "|---|---|"
echo "| full handshakes a second, one client | $(column handshakes 2 %.0f) |"
echo "| CPU of one, with its connection | $(column handshakes 3 %.2f) ms |"
echo "| latency p50 / p99 of $watching who watch | $(column alone 2 %.0f) / $(column alone 3 %.0f) ms |"
echo "| the same while $arriving arrive in a second | $(column arrivals 2 %.0f) / $(column arrivals 3 %.0f) ms |"
echo "| first keyframe p50 / p99 of those who arrive | $(column arrived 2 %.0f) / $(column arrived 3 %.0f) ms |"
echo "| watchers' and arrivals' bytes received | $(column arrivals 4 %.1f) % / $(column arrived 4 %.1f) % |"
