#!/usr/bin/env bash
# The cost of static files: the file gateway and nginx, alternately, in one run on one machine.
#
#   perf/files.sh                                   the whole table, about four minutes
#   CASES="200K-1000" ROUNDS=3 DURATION=5 COLD= HELD= perf/files.sh
#   TLS=yes COLD= HELD= perf/files.sh               the same over https
#
# A case is SIZE-CONNECTIONS, with "-new" for a new connection for each request. COLD: hot requests while other
# clients read files that are not in memory. HELD: this many connections are held, and each sends a request
# every two seconds. wrk sends the requests of the cases, the stress tool holds connections. nginx has one
# worker with sendfile, tcp_nopush and open_file_cache, and no access log. perf/lib.sh lists more settings.
ROUNDS=${ROUNDS:-1} DURATION=${DURATION:-4} OUT=${OUT:-target/perf-files}
. "$(dirname "$0")/lib.sh"

cases=${CASES:-20K-1 20K-100 20K-1000 20K-100-new 200K-1 200K-100 200K-1000 200K-100-new 1M-1 1M-100 1M-1000 1M-100-new 1G-1 1G-100}
cold=${COLD-yes}
held=${HELD-18000}
root=$PWD/$out/root
scheme=http flags=() ssl=
if [[ -n ${TLS:-} ]]; then
  certificate
  scheme=https flags=(--tls-cert "$out/tls.pem" --tls-key "$out/tls.key")
  ssl="ssl_certificate $PWD/$out/tls.pem; ssl_certificate_key $PWD/$out/tls.key;"
fi

for tool in nginx wrk; do
  command -v "$tool" >/dev/null || { echo "perf/files.sh needs $tool: apt-get install nginx-light wrk" >&2; exit 1; }
done
mkdir -p "$root"

make() { # make NAME BYTES: a file of bytes that do not repeat, in memory afterwards.
  [[ -s $root/$1 ]] || head -c "$2" /dev/urandom >"$root/$1"
  cat "$root/$1" >/dev/null
}
make 20K 20000
make 200K 200000
make 1M 1000000
[[ $cases == *1G* ]] && make 1G 1000000000

start_ours() {
  launch "$server_core" "$out/ours.log" "$server" file-gateway --loops 1 --listen 127.0.0.1:0 --admin off --root "$root" \
    "${flags[@]}"
  address=$(ready "$out/ours.log" listen)
}

start_nginx() {
  local port dir=$PWD/$out
  port=$(free_port)
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
  server { listen $address reuseport backlog=65535${ssl:+ ssl}; $ssl root $root; }
}
END
  launch "$server_core" "$out/nginx.log" nginx -c "$dir/nginx.conf"
  listening "$port" "$out/nginx.log"
}

# measure_case WHAT CASE: one run, one line of results.
measure_case() {
  local what=$1 case=$2 size connections new report before after header=()
  IFS=- read -r size connections new <<<"$case"
  [[ $new == new ]] && header=(-H "Connection: close")
  "start_$what"
  taskset -c "$load_core" wrk -t1 -c4 -d1s "$scheme://$address/$size" >/dev/null
  before=$(cpu "$pid")
  report=$(taskset -c "$load_core" wrk -t1 "-c$connections" "-d${duration}s" --latency --timeout 30s \
    "${header[@]}" "$scheme://$address/$size")
  after=$(cpu "$pid")
  awk -v what="$what" -v case="$case" -v before="$before" -v after="$after" '
    function bytes(text) { f = 1; if (text ~ /KB/) f = 1024; if (text ~ /MB/) f = 1048576; if (text ~ /GB/) f = 1073741824
      if (text ~ /TB/) f = 1099511627776; return text * f }
    function ms(text) { return text ~ /us$/ ? text / 1000 : text ~ /ms$/ ? text + 0 : text * 1000 }
    /50%/ { p50 = ms($2) } /99%/ { p99 = ms($2) }
    / requests in / { n = $1; read = bytes($5) }
    /Requests\/sec/ { rate = $2 } /Socket errors/ { errors = $0 } /Non-2xx/ { errors = errors $0 }
    END { cpu = after - before
      printf "%s\t%s\t%.0f\t%.4f\t%.2f\t%.2f\t%.2f\t%s\n", case, what, rate, cpu / (read / 1e9), cpu / n * 1e6, p50, p99,
        errors == "" ? "none" : errors }' <<<"$report" | tee -a "$results"
  stop
}

printf 'case\twhat\treq/s\tCPU-s/GB\tCPU-us/req\tp50 ms\tp99 ms\terrors\n'
for case in $cases; do
  for _ in $(seq "$rounds"); do
    measure_case ours "$case"
    measure_case nginx "$case"
  done
done

heading
printf '| file, connections | req/s ours / nginx | CPU-s per GB ours / nginx | CPU-µs per request ours / nginx | ratio | p50, p99 ms ours | nginx |\n'
printf '|---|---|---|---|---|---|---|\n'
for case in $cases; do
  o() { numbers "$case" ours "$1" | median "$2"; }
  n() { numbers "$case" nginx "$1" | median "$2"; }
  printf '| %s | %s / %s | %s / %s | %s / %s | %s | %s, %s | %s, %s |\n' "$case" \
    "$(o 3 %.0f)" "$(n 3 %.0f)" "$(o 4 %.3f)" "$(n 4 %.3f)" "$(o 5 %.1f)" "$(n 5 %.1f)" \
    "$(ratios "$case" ours nginx 5 | spread %.2f)" "$(o 6 %.1f)" "$(o 7 %.1f)" "$(n 6 %.1f)" "$(n 7 %.1f)"
done

# Hot requests for 200K while two more clients read files that are not in memory; then the same without these
# clients.
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

# Connections that are held.
measure_held() {
  local what=$1 n=$2 json
  "start_$what"
  json=$(taskset -c "$load_core" "$target/uringcast" stress --quiet --json --viewers "$n" --ramp 4 --duration 6 \
    --ask-every 2 --server-pid "$pid" "http://$address/20K") || true
  printf '| %s | %s | %s | %s | %s B | %s %% | %s | %s / %s |\n' "$what" "$n" "$(field connected "$json")" \
    "$(field failed "$json")" "$(field own_bytes_per_viewer "$json" | median %.0f)" \
    "$(field cpu_percent "$json" | median %.0f)" "$(field per_second "$json" | median %.0f)" \
    "$(part ms p50 "$json" | median %.1f)" "$(part ms p99 "$json" | median %.1f)"
  stop
}
if [[ -n $held ]]; then
  printf '\n| connections held, each asks for 20K every 2 s | how many | answered | failed | memory each | of a core | answers/s | p50 / p99 ms |\n|---|---|---|---|---|---|---|---|\n'
  for what in ours nginx; do measure_held "$what" "$held"; done
  # nginx closes idle connections to keep a sixteenth free, and may not open more than 20,000 descriptors here.
  measure_held ours 20000
fi
