#!/usr/bin/env bash
# What static files cost: the file gateway beside nginx, alternately, in one run on one machine.
#
#   perf/files.sh                                   the whole table, about three minutes
#   CASES="200K-1000" ROUNDS=3 DURATION=5 perf/files.sh
#
# A case is SIZE-CONNECTIONS, with "-new" for a connection each. Each server has core SERVER_CORE to itself,
# wrk has LOAD_CORE. CPU is the server's user and system time while wrk runs; on loopback the receiver's TCP work
# is part of it, for both alike. nginx has one worker with sendfile, tcp_nopush and open_file_cache, no access log.
set -euo pipefail
cd "$(dirname "$0")/.."

cases=${CASES:-20K-1 20K-100 20K-1000 20K-100-new 200K-1 200K-100 200K-1000 200K-100-new 1M-1 1M-100 1M-1000 1M-100-new 1G-1 1G-100}
rounds=${ROUNDS:-1}
duration=${DURATION:-4}
server_core=${SERVER_CORE:-0}
load_core=${LOAD_CORE:-1}
out=${OUT:-target/perf-files}
target=${CARGO_TARGET_DIR:-target}/release
server=${SERVER:-$target/uringcast}
root=$PWD/$out/root

for tool in nginx wrk taskset; do
  command -v "$tool" >/dev/null || { echo "perf/files.sh needs $tool: apt-get install nginx-light wrk" >&2; exit 1; }
done
ulimit -n "$(ulimit -Hn)"
mkdir -p "$root"
results=$out/results.tsv
: >"$results"

make() { # make NAME BYTES: a file of bytes that do not repeat, in memory afterwards.
  [[ -s $root/$1 ]] || head -c "$2" /dev/urandom >"$root/$1"
  cat "$root/$1" >/dev/null
}
make 20K 20000
make 200K 200000
make 1M 1000000
[[ $cases == *1G* ]] && make 1G 1000000000

running=()
stop() {
  local pid
  for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${running[@]}"; do wait "$pid" 2>/dev/null || true; done
  running=()
}
trap stop EXIT

start_ours() {
  taskset -c "$server_core" "$server" file-gateway --loops 1 --listen 127.0.0.1:0 --admin off --root "$root" \
    2>"$out/ours.log" &
  pid=$!
  running+=("$pid")
  for _ in $(seq 100); do
    address=$(sed -n 's/^ready .*listen=\([^ ]*\).*/\1/p' "$out/ours.log")
    [[ -n $address ]] && return
    sleep 0.05
  done
  echo "no ready line:" >&2
  cat "$out/ours.log" >&2
  exit 1
}

start_nginx() {
  local port=$((20000 + RANDOM % 10000)) dir=$PWD/$out
  address=127.0.0.1:$port
  cat >"$out/nginx.conf" <<END
daemon off; master_process off; worker_processes 1; pid $dir/nginx.pid; error_log $dir/nginx.log;
worker_rlimit_nofile $(ulimit -n);
events { worker_connections 19900; }
http {
  sendfile on; tcp_nopush on; access_log off; keepalive_requests 1000000000; keepalive_timeout 300s;
  open_file_cache max=10000 inactive=60s; open_file_cache_valid 30s;
  client_body_temp_path $dir/nginx-body; proxy_temp_path $dir/nginx-proxy; fastcgi_temp_path $dir/nginx-fastcgi;
  uwsgi_temp_path $dir/nginx-uwsgi; scgi_temp_path $dir/nginx-scgi;
  server { listen $address reuseport backlog=65535; root $root; }
}
END
  taskset -c "$server_core" nginx -c "$dir/nginx.conf" 2>>"$out/nginx.log" &
  pid=$!
  running+=("$pid")
  for _ in $(seq 100); do
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
    sleep 0.05
  done
  echo "nginx does not listen:" >&2
  cat "$out/nginx.log" >&2
  exit 1
}

cpu_ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }
resident() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }

# measure WHAT CASE: one run, one line of results.
measure() {
  local what=$1 case=$2 size connections new report before after header=()
  IFS=- read -r size connections new <<<"$case"
  [[ $new == new ]] && header=(-H "Connection: close")
  "start_$what"
  taskset -c "$load_core" wrk -t1 -c4 -d1s "http://$address/$size" >/dev/null
  before=$(cpu_ticks "$pid")
  report=$(taskset -c "$load_core" wrk -t1 "-c$connections" "-d${duration}s" --latency --timeout 30s \
    "${header[@]}" "http://$address/$size")
  after=$(cpu_ticks "$pid")
  awk -v what="$what" -v case="$case" -v ticks="$((after - before))" -v hz="$(getconf CLK_TCK)" '
    function bytes(text) { f = 1; if (text ~ /KB/) f = 1024; if (text ~ /MB/) f = 1048576; if (text ~ /GB/) f = 1073741824
      if (text ~ /TB/) f = 1099511627776; return text * f }
    function ms(text) { return text ~ /us$/ ? text / 1000 : text ~ /ms$/ ? text + 0 : text * 1000 }
    /50%/ { p50 = ms($2) } /99%/ { p99 = ms($2) }
    / requests in / { n = $1; read = bytes($5) }
    /Requests\/sec/ { rate = $2 } /Socket errors/ { errors = $0 } /Non-2xx/ { errors = errors $0 }
    END { cpu = ticks / hz
      printf "%s\t%s\t%.0f\t%.4f\t%.2f\t%.2f\t%.2f\t%s\n", what, case, rate, cpu / (read / 1e9), cpu / n * 1e6, p50, p99,
        errors == "" ? "none" : errors }' <<<"$report" | tee -a "$results"
  stop
}

[[ -x $server ]] || cargo build --release
printf 'what\tcase\treq/s\tCPU-s/GB\tCPU-us/req\tp50 ms\tp99 ms\terrors\n'
for case in $cases; do
  for _ in $(seq "$rounds"); do
    measure ours "$case"
    measure nginx "$case"
  done
done

# median WHAT CASE COLUMN, over the rounds.
median() {
  awk -F'\t' -v w="$1" -v k="$2" -v c="$3" '$1 == w && $2 == k { print $c }' "$results" | sort -g |
    awk '{ v[NR] = $1 } END { m = int((NR + 1) / 2); print NR % 2 ? v[m] : (v[m] + v[m + 1]) / 2 }'
}
printf '\n| file, connections | req/s ours / nginx | CPU-s per GB ours / nginx | CPU-µs per request ours / nginx | ratio | p50, p99 ms ours | nginx |\n'
printf '|---|---|---|---|---|---|---|\n'
for case in $cases; do
  o() { median ours "$case" "$1"; }
  n() { median nginx "$case" "$1"; }
  printf '| %s | %s / %s | %.3f / %.3f | %s / %s | %.2f | %s, %s | %s, %s |\n' "$case" "$(o 3)" "$(n 3)" "$(o 4)" "$(n 4)" \
    "$(o 5)" "$(n 5)" "$(awk -v a="$(o 5)" -v b="$(n 5)" 'BEGIN { print a / b }')" "$(o 6)" "$(o 7)" "$(n 6)" "$(n 7)"
done
