#!/usr/bin/env bash
# The ways in which a stream's bytes can be sent (limits.send_path), compared with each other and with the raw
# sender, to check the choice that "auto" makes on another machine.
#
#   perf/paths.sh                                    3,000 viewers; 1 and 4 Mbps; --flush 40ms and 350ms
#
# perf/lib.sh lists more settings.
. "$(dirname "$0")/lib.sh"

n=${VIEWERS:-3000}
flushes=${FLUSHES:-40ms 350ms}
kbps=${KBPS:-1000 4000}
paths=${PATHS:-auto copy fixed zero-copy pages}

for rate in $kbps; do
  file=$(clip "$rate")
  for flush in $flushes; do
    for _ in $(seq "$rounds"); do
      row="$rate $flush"
      for path in $paths; do
        export URINGCAST_LIMITS__SEND_PATH=$path
        start_origin "$server_core" --loops 1 --flush "$flush"
        start_publisher "$file"
        measure "$row" "$path" "$n" --ramp $((n / 1000)) "http://$flv/live/perf.flv"
        stop
      done
      start_raw "$file" --flush "$flush"
      measure "$row" raw "$n" --ramp $((n / 1000)) "http://$flv/live/perf.flv"
      stop
    done
  done
done

heading
echo "CPU-s per GB, $n viewers:"
echo
printf '| kbit/s | flush |'; printf ' %s |' $paths raw; echo
printf '|---|---|'; printf '%s' $(printf -- '---| %.0s' $paths raw); echo
for rate in $kbps; do
  for flush in $flushes; do
    printf '| %s | %s |' "$rate" "$flush"
    for path in $paths raw; do printf ' %s |' "$(numbers "$rate $flush" "$path" 3 | spread %.2f)"; done
    echo
  done
done
