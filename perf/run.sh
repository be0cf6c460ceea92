#!/usr/bin/env bash
# The cost of fan-out: the origin and the raw sender, alternately, in one run on one machine.
#
#   perf/run.sh                                      5,000 viewers of 1 Mbps; --flush 0ms, 40ms, 100ms, 350ms
#   VIEWERS="2000 20000" FLUSHES="350ms" KBPS="1000 4000" perf/run.sh
#
# perf/lib.sh lists more settings. 20,000 viewers need the descriptors of two generators: the generator starts a
# second process by itself.
. "$(dirname "$0")/lib.sh"

viewers=${VIEWERS:-5000}
flushes=${FLUSHES:-0ms 40ms 100ms 350ms}
kbps=${KBPS:-1000}

for rate in $kbps; do
  file=$(clip "$rate")
  for flush in $flushes; do
    for n in $viewers; do
      for _ in $(seq "$rounds"); do
        row="$rate $flush $n"
        ramp=${RAMP:-$((n / 1000 + 1))}
        start_origin "$server_core" --loops 1 --flush "$flush"
        start_publisher "$file"
        measure "$row" server "$n" --ramp "$ramp" "http://$flv/live/perf.flv"
        stop
        ((n < $(ulimit -n) - 256)) || continue # the raw sender cannot hold them
        start_raw "$file" --flush "$flush"
        measure "$row" raw "$n" --ramp "$ramp" "http://$flv/live/perf.flv"
        stop
      done
    done
  done
done

heading
echo "| kbit/s | flush | viewers | CPU-s per GB | raw sender | ratio | % of a core | latency p50 / p99 | first keyframe p50 / p99 | user memory a viewer | TCP memory | failed runs |"
echo "|---|---|---|---|---|---|---|---|---|---|---|---|"
for rate in $kbps; do
  for flush in $flushes; do
    for n in $viewers; do
      row="$rate $flush $n"
      printf '| %s | %s | %s | %s | %s | %s | %s | %s / %s ms | %s / %s ms | %s B | %s MB | %s |\n' $row \
        "$(numbers "$row" server 3 | spread %.2f)" "$(numbers "$row" raw 3 | spread %.2f)" \
        "$(ratios "$row" server raw | spread %.2f)" "$(numbers "$row" server 9 | median %.0f)" \
        "$(numbers "$row" server 7 | median %.0f)" "$(numbers "$row" server 8 | median %.0f)" \
        "$(numbers "$row" server 5 | median %.1f)" "$(numbers "$row" server 6 | median %.0f)" \
        "$(numbers "$row" server 4 | median %.0f)" "$(numbers "$row" server 10 | awk '{ print $1 / 1e6 }' | median %.0f)" \
        "$(failures "$row")"
    done
  done
done
