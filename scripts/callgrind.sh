# Shared by the scripts that count instructions; sourced, not run. Instructions are counted, not timed, so the
# result is the same on every machine of a kind. Needs valgrind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# program NAME CARGO-ARGUMENT…: builds a test or bench program and prints its path.
program() {
  local binary
  binary=$(cargo "${@:2}" --no-run 2>&1 | sed -n "s/.*(\\(.*$1-[0-9a-f]*\\))\$/\\1/p")
  [[ -x $binary ]] || { echo "no program $1 from cargo ${*:2}" >&2; return 1; }
  echo "$binary"
}

# callgrind COMMAND…: runs the command; the output has its instructions on a line "Collected : N".
callgrind() { valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1; }

# collected: the number of instructions in the output of callgrind.
collected() { sed -n 's/.*Collected : \([0-9]*\)$/\1/p'; }
