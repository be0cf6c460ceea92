#!/usr/bin/env bash
# The memory cost of abusive clients: one origin of one loop for each case, and the peak of its memory.
#
#   perf/abuse.sh                       all cases
#   CASES="pages headers" perf/abuse.sh some of them: pages headers large-headers publishers halves deaf silent
#   OTHER=path perf/abuse.sh            another build, to compare with this one
#   BUDGET=256MiB                       limits.memory, for builds that have it
#
# Memory is VmHWM of the process, including the shared memory of logs. What the kernel holds in socket buffers
# is not memory of the process; the budget counts what viewers leave there.
. "$(dirname "$0")/lib.sh"

cases=${CASES:-pages headers large-headers publishers halves deaf silent}
budget=${BUDGET:-256MiB}

# take WHICH SERVER CASE: one run, one line of results.
take() {
  local config=$out/abuse.toml before outcome peak state=up
  printf '[limits]\nmemory = "%s"\n' "$budget" >"$config"
  server=$2
  "$2" check-config "$config" >/dev/null 2>&1 || : >"$config"
  start_origin "$server_core" --loops 1 --config "$config" --data "$out/abuse-data"
  before=$(field_of VmRSS)
  outcome=$(taskset -c "$load_core" "$target/examples/abuse" "$3" "$flv") || outcome="FAILED: $3"
  peak=$(field_of VmHWM)
  kill -0 "$pid" 2>/dev/null || { state=DEAD; peak=0; }
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$3" "$1" "$outcome" "$before" "$peak" "$state" >>"$results"
  tail -n 1 "$results" >&2
  stop
}

# field_of NAME: mebibytes.
field_of() { awk -v n="$1:" '$1 == n { printf "%.0f", $2 / 1024 }' "/proc/$pid/status" 2>/dev/null; }

own=$server
for case in $cases; do
  take this "$own" "$case"
  [[ -z ${OTHER:-} ]] || take other "$OTHER" "$case"
done

echo "Linux $(uname -r), limits.memory $budget"
echo
echo "| case | build | at the start | peak | process |"
echo "|---|---|---|---|---|"
awk -F'\t' '{ printf "| %s | %s | %s MiB | %s MiB | %s |\n", $3, $2, $4, $5, $6 }' "$results"
