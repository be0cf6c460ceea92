#!/usr/bin/env bash
# The cost of TLS: viewers of one origin by https and by http, alternately, in one run on one machine.
#
#   perf/tls.sh                                      2,000 viewers of 1 Mbps; --flush 40ms, 100ms, 350ms
#   VIEWERS=10000 FLUSHES=350ms perf/tls.sh
#   NGINX_FLV=…/nginx perf/tls.sh                    and by an nginx with nginx-http-flv-module, in the same rounds
#
# perf/lib.sh lists more settings. CPU is measured while all viewers are connected: it is that of the records, not of
# the handshakes, whose time shows in the first keyframe. TLS=yes perf/files.sh measures files.
. "$(dirname "$0")/lib.sh"

viewers=${VIEWERS:-2000}
flushes=${FLUSHES:-40ms 100ms 350ms}
file=$(clip "${KBPS:-1000}")
certificate

for flush in $flushes; do
  for n in $viewers; do
    for _ in $(seq "$rounds"); do
      for what in tls plain; do
        start_origin "$server_core" --loops 1 --flush "$flush" --tls-cert "$out/tls.pem" --tls-key "$out/tls.key"
        start_publisher "$file"
        url=http://$flv/live/perf.flv
        [[ $what == plain ]] || url=https://$flv/live/perf.flv
        measure "$flush $n" "$what" "$n" --ramp "${RAMP:-$((n / 400 + 1))}" --insecure "$url"
        stop
      done
      [[ -n ${NGINX_FLV:-} ]] || continue
      for what in nginx-tls nginx-plain; do
        if [[ $what == nginx-tls ]]; then start_nginx_flv tls; else start_nginx_flv; fi
        start_publisher "$file"
        measure "$flush $n" "$what" "$n" --ramp "${RAMP:-$((n / 400 + 1))}" --protocol http-flv --insecure "$url"
        stop
      done
    done
  done
done

heading
echo "| flush | viewers | CPU-s per GB, TLS | plain | ratio | % of a core | user memory a viewer, TLS / plain | latency p50 / p99, TLS | plain | first keyframe p50 / p99, TLS | failed runs |"
echo "|---|---|---|---|---|---|---|---|---|---|---|"
for flush in $flushes; do
  for n in $viewers; do
    row="$flush $n"
    of() { numbers "$row" "$1" "$2" | median "$3"; }
    printf '| %s | %s | %s | %s | %s | %s | %s / %s B | %s / %s ms | %s / %s ms | %s / %s ms | %s |\n' $row \
      "$(numbers "$row" tls 3 | spread %.2f)" "$(numbers "$row" plain 3 | spread %.2f)" \
      "$(ratios "$row" tls plain | spread %.2f)" "$(of tls 9 %.0f)" "$(of tls 4 %.0f)" "$(of plain 4 %.0f)" \
      "$(of tls 7 %.0f)" "$(of tls 8 %.0f)" "$(of plain 7 %.0f)" "$(of plain 8 %.0f)" \
      "$(of tls 5 %.1f)" "$(of tls 6 %.0f)" "$(failures "$row")"
  done
done
[[ -n ${NGINX_FLV:-} ]] || exit 0

echo
echo "nginx-http-flv sends data as it comes."
echo
echo "| flush (ours) | viewers | CPU-s per GB, nginx TLS | plain | ours to nginx, TLS | user memory a viewer, nginx TLS | first keyframe p50 / p99, nginx TLS |"
echo "|---|---|---|---|---|---|---|"
for flush in $flushes; do
  for n in $viewers; do
    row="$flush $n"
    printf '| %s | %s | %s | %s | %s | %s B | %s / %s ms |\n' $row \
      "$(numbers "$row" nginx-tls 3 | spread %.2f)" "$(numbers "$row" nginx-plain 3 | spread %.2f)" \
      "$(ratios "$row" tls nginx-tls | spread %.2f)" "$(numbers "$row" nginx-tls 4 | median %.0f)" \
      "$(numbers "$row" nginx-tls 5 | median %.1f)" "$(numbers "$row" nginx-tls 6 | median %.0f)"
  done
done
