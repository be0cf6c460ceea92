#!/usr/bin/env bash
# What static files cost: the file gateway beside nginx, alternately, in one run on one machine.
#
#   perf/files.sh                                   the whole table, about four minutes
#   CASES="200K-1000" ROUNDS=3 DURATION=5 COLD= TRICKLE= perf/files.sh
#
# A case is SIZE-CONNECTIONS, with "-new" for a connection each. COLD: hot requests while other clients read files that
# are not in memory. TRICKLE: so many connections are held, each asks once in two seconds. Each server has core SERVER_CORE to itself,
# wrk has LOAD_CORE. CPU is the server's user and system time while wrk runs; on loopback the receiver's TCP work
# is part of it, for both alike. nginx has one worker with sendfile, tcp_nopush and open_file_cache, no access log.
set -euo pipefail
cd "$(dirname "$0")/.."

cases=${CASES:-20K-1 20K-100 20K-1000 20K-100-new 200K-1 200K-100 200K-1000 200K-100-new 1M-1 1M-100 1M-1000 1M-100-new 1G-1 1G-100}
cold=${COLD-yes}
trickle=${TRICKLE-18000}
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
  : >"$out/ours.log" # or the line of the last one is read
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

[[ -x $server && -x $target/examples/trickle ]] || cargo build --release --bins --example trickle
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

# Hot requests for 200K while two more clients read files that are not in memory; then the same without them.
measure_cold() {
  local what=$1 state=$2 report reader
  if [[ $state == cold ]]; then
    sync
    for file in "$root"/cold-*; do dd of="$file" oflag=nocache conv=notrunc,fdatasync count=0 status=none; done
  fi
  "start_$what"
  taskset -c "$load_core" wrk -t1 -c4 -d1s "http://$address/200K" >/dev/null
  if [[ $state == cold ]]; then
    for reader in 1 2; do
      taskset -c "$load_core" bash -c "for i in \$(seq $reader 2 400); do exec 3<>/dev/tcp/${address/:/\/}
        printf 'GET /cold-%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' \$i >&3; cat <&3 >/dev/null; done" &
      running+=("$!")
    done
  fi
  report=$(taskset -c "$load_core" wrk -t1 -c32 "-d${duration}s" --latency "http://$address/200K")
  printf '| %s | %s | %s | %s | %s |\n' "$what" "$state" \
    "$(awk '/50%/ { print $2 }' <<<"$report")" "$(awk '/99%/ { print $2 }' <<<"$report")" \
    "$(awk '/^ +Latency +[0-9]/ { print $4 }' <<<"$report")"
  stop
}
if [[ -n $cold ]]; then
  for i in $(seq 400); do [[ -s $root/cold-$i ]] || head -c 2000000 /dev/urandom >"$root/cold-$i"; done
  printf '\n| hot 200K, 32 connections | others read | p50 | p99 | max |\n|---|---|---|---|---|\n'
  for what in ours nginx; do for state in nothing cold; do measure_cold "$what" "$state"; done; done
fi

# Connections that are held, by two generators: one alone has not enough descriptors.
measure_trickle() {
  local what=$1 half=$(($2 / 2)) rss before after
  "start_$what"
  rss=$(resident "$pid")
  for half_number in 1 2; do
    taskset -c "$load_core" "$target/examples/trickle" "$address" /20K "$half" 2000 6 2>"$out/trickle-$half_number" &
    running+=("$!")
  done
  sleep 5
  before=$(cpu_ticks "$pid")
  sleep 2
  after=$(cpu_ticks "$pid")
  rss=$(($(resident "$pid") - rss))
  wait "${running[-1]}" "${running[-2]}" || true
  printf '| %s | %s | %s B | %s %% | %s / %s |\n' "$what" "$2" "$((rss * 1024 / $2))" "$(((after - before) * 100 / 2 / $(getconf CLK_TCK)))" \
    "$(cat "$out/trickle-1")" "$(cat "$out/trickle-2")"
  stop
}
if [[ -n $trickle ]]; then
  printf '\n| connections held, each asks for 20K every 2 s | how many | RSS each | of a core | generators |\n|---|---|---|---|---|\n'
  for what in ours nginx; do measure_trickle "$what" "$trickle"; done
  # nginx gives up idle connections to keep a sixteenth free, and may not open more than 20,000 descriptors here.
  measure_trickle ours 20000
fi
