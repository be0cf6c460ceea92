# Shared by the measuring scripts; sourced, not run. Settings, as environment variables:
#
#   ROUNDS=5 DURATION=10     counted rounds of each row, and seconds measured in each
#   SERVER_CORE=0 LOAD_CORE=1   the server's core, and that of the generator and the publisher
#   SERVER=…                 another build of the server, to compare with this one
#
# CPU is the server's user and system time while all viewers are connected; on loopback it includes the
# receiver's TCP work, for the server and for the raw sender alike. The generator checks its sockets every 2 ms:
# if it slept on them, each send would have to wake it, which is the sender's work on loopback and does not
# exist on a network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=${ROUNDS:-5}
duration=${DURATION:-10}
server_core=${SERVER_CORE:-0}
load_core=${LOAD_CORE:-1}
target=${CARGO_TARGET_DIR:-target}/release
server=${SERVER:-$target/uringcast}
out=${OUT:-target/perf}
mkdir -p "$out"
results=$out/results.tsv
: >"$results"
: >"$out/reports.jsonl"

for tool in ffmpeg taskset; do
  command -v "$tool" >/dev/null || { echo "measuring needs $tool" >&2; exit 1; }
done
ulimit -n "$(ulimit -Hn)"
[[ -n ${NO_BUILD:-} ]] || cargo build --release --quiet --bins --examples

# The publisher must be on time however busy the generator on the same core is.
first=()
((EUID != 0)) || first=(nice -n -15)

running=()
stop() {
  local pid
  for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${running[@]}"; do wait "$pid" 2>/dev/null || true; done
  running=()
}
trap stop EXIT

# clip KBPS [LOW]: the file that is published, made once: H.264 at 25 fps, GOP 2 s, AAC.
clip() {
  local file=$out/clip-$1k.flv
  [[ -s $file ]] || {
    ffmpeg -nostdin -loglevel error -y \
      -f lavfi -i "testsrc2=size=640x360:rate=25:duration=20" \
      -f lavfi -i "sine=frequency=440:sample_rate=44100:duration=20" \
      -c:v libx264 -preset veryfast -pix_fmt yuv420p -bf 0 -g 50 -keyint_min 50 -sc_threshold 0 \
      -b:v "$(($1 - 70))k" -minrate "$(($1 - 70))k" -maxrate "$(($1 - 70))k" -bufsize "$(($1 - 70))k" \
      -x264-params nal-hrd=cbr -c:a aac -b:a 64k -f flv "$file.part"
    mv "$file.part" "$file"
  }
  echo "$file"
}

# ready LOG NAME: the value that the ready line in LOG gives for NAME.
ready() {
  local _ value
  for _ in $(seq 200); do
    value=$(sed -n "s/^ready .*\\b$2=\\([^ ]*\\).*/\\1/p" "$1" | head -n 1)
    [[ -n $value ]] && { echo "$value"; return; }
    sleep 0.1
  done
  echo "no ready line with $2= in $1:" >&2
  tail -n 20 "$1" >&2
  return 1
}

# certificate: makes $out/tls.pem and $out/tls.key once, for localhost.
certificate() {
  [[ -s $out/tls.pem ]] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$out/tls.key" -out "$out/tls.pem" 2>/dev/null
}

# free_port: a port without a listener.
free_port() {
  local port
  for _ in $(seq 50); do
    port=$((20000 + RANDOM % 10000))
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

# listening PORT LOG: waits for a listener on the port.
listening() {
  for _ in $(seq 100); do
    (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
    sleep 0.05
  done
  echo "nothing listens on $1:" >&2
  cat "$2" >&2
  return 1
}

# cpu PID: seconds of user and system time that the process has used.
cpu() { awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print ($12 + $13) / hz }' "/proc/$1/stat"; }

# launch CORES LOG COMMAND…: starts the command in the background with an empty log; sets pid.
launch() {
  : >"$2" # now, or the ready line of an earlier one is read
  taskset -c "$1" "${@:3}" >/dev/null 2>>"$2" &
  pid=$!
  running+=("$pid")
}

# start_origin CORES [FLAG…]: sets pid, rtmp and flv; $record says what it records.
record=none
start_origin() {
  launch "$1" "$out/server.log" "$server" origin --rtmp 127.0.0.1:0 --flv 127.0.0.1:0 --web 127.0.0.1:0 --admin off \
    --record "$record" "${@:2}"
  rtmp=$(ready "$out/server.log" rtmp)
  flv=$(ready "$out/server.log" flv)
}

# start_publisher FILE [FLAG…]: publishes to the origin and waits until a group of pictures was sent.
start_publisher() {
  local server_pid=$pid log=$out/publisher.log
  launch "$load_core" "$log" "${first[@]}" "$target/examples/publisher" "$1" "$rtmp" "${@:2}"
  ready "$log" streams >/dev/null
  sleep 3
  kill -0 "$pid" 2>/dev/null || { echo "the publisher ended:" >&2; cat "$log" >&2; exit 1; }
  pid=$server_pid
}

# start_raw FILE [FLAG…]: starts the baseline instead of the server: sets pid and flv.
start_raw() {
  launch "$server_core" "$out/baseline.log" "$target/examples/raw_sender" "$@"
  flv=$(ready "$out/baseline.log" listen)
  sleep 3
}

# start_nginx_flv [tls]: starts NGINX_FLV, an nginx with nginx-http-flv-module (and its TLS module): sets rtmp and url.
start_nginx_flv() {
  local push play ssl= dir=$PWD/$out/nginx-flv
  push=$(free_port) play=$(free_port)
  mkdir -p "$dir/logs"
  [[ -z ${1:-} ]] || ssl="ssl_certificate $PWD/$out/tls.pem; ssl_certificate_key $PWD/$out/tls.key;"
  cat >"$dir/nginx.conf" <<END
daemon off; master_process off; worker_processes 1; pid $dir/nginx.pid; error_log $dir/error.log error;
worker_rlimit_nofile $(ulimit -n);
events { worker_connections 19900; }
rtmp { access_log off; out_queue 4096; out_cork 8; max_streams 128; server { listen 127.0.0.1:$push; chunk_size 65536; application live { live on; gop_cache on; } } }
http { access_log off; client_body_temp_path $dir/b; proxy_temp_path $dir/p; fastcgi_temp_path $dir/f;
  uwsgi_temp_path $dir/u; scgi_temp_path $dir/s;
  server { listen 127.0.0.1:$play${ssl:+ ssl}; $ssl location /live { flv_live on; chunked_transfer_encoding on; } } }
END
  launch "$server_core" "$dir/log" "$NGINX_FLV" -p "$dir" -c "$dir/nginx.conf"
  listening "$play" "$dir/error.log"
  rtmp=127.0.0.1:$push url="http${1:+s}://127.0.0.1:$play/live?port=$push&app=live&stream=perf"
}

# measure ROW WHAT VIEWERS FLAG…: one run of the generator, one line of results.
measure() {
  local row=$1 what=$2 n=$3 json verdict=ok
  shift 3
  json=$(taskset -c "$load_core" "$target/uringcast" stress --quiet --json --viewers "$n" --duration "$duration" \
    --server-pid "$pid" "$@") || verdict=FAILED
  echo "$json" >>"$out/reports.jsonl"
  printf '%s\t' "$row" "$what" "$(field cpu_seconds_per_gb "$json")" "$(field own_bytes_per_viewer "$json")" \
    "$(part first_keyframe_ms p50 "$json")" "$(part first_keyframe_ms p99 "$json")" \
    "$(part latency_ms p50 "$json")" "$(part latency_ms p99 "$json")" "$(field cpu_percent "$json")" \
    "$(field tcp_memory_bytes "$json")" "$(field served_percent "$json")" >>"$results"
  printf '%s\n' "$verdict" >>"$results"
  tail -n 1 "$results" >&2
}
field() { sed -n "s/.*\"$1\":\\([-0-9.e]*\\).*/\\1/p" <<<"$2"; }
part() { sed -n "s/.*\"$1\":{[^}]*\"$2\":\\([-0-9.e]*\\).*/\\1/p" <<<"$3"; }

# numbers ROW WHAT COLUMN: the values of all rounds, one per line.
numbers() { awk -F'\t' -v r="$1" -v w="$2" -v c="$3" '$1 == r && $2 == w { print $c }' "$results"; }

# spread FORMAT: median, minimum and maximum of the numbers on standard input.
spread() {
  sort -g | awk -v f="$1" '{ v[NR] = $1 } END {
    if (NR == 0) { print "-"; exit }
    m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
    printf f " (" f "-" f ")\n", m, v[1], v[NR] }'
}
median() { spread "$1" | cut -d' ' -f1; }

# Ratios are taken round by round, between runs that are close in time, so that a busy minute affects both.
# ratios ROW WHAT OTHER [COLUMN]
ratios() { paste <(numbers "$1" "$2" "${4:-3}") <(numbers "$1" "$3" "${4:-3}") | awk '$2 > 0 { print $1 / $2 }'; }

# failures ROW [WHAT]: how many runs of each kind failed.
failures() {
  awk -F"\t" -v r="$1" -v w="${2:-}" '$1 == r && (w == "" || $2 == w) && $12 != "ok" { n[$2]++ } END {
    for (w in n) { printf "%s%s %d", (s++ ? ", " : ""), w, n[w] }
    if (!s) printf "none" }' "$results"
}

heading() {
  echo "Linux $(uname -r), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores;" \
    "$rounds rounds of $duration s, median (min-max)"
  echo
}
