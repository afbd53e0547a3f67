#!/usr/bin/env bash
# Where the time of a workload of `plyfs bench` goes: requests that reach the server by kind, its
# system calls (strace), and who is on the CPUs (perf). scripts/profile.sh WORKLOAD [PLYFS] [DIR]
# WORKLOAD is one of `plyfs bench list`, PLYFS the program (target/release/plyfs), DIR where to
# measure (/var/tmp). Each of the three is a run of its own, since looking costs time. As root.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
. scripts/need.sh
need strace:strace perf:linux-perf
[ $# -ge 1 ] || { echo "usage: scripts/profile.sh WORKLOAD [PLYFS] [DIR]" >&2; exit 2; }
workload=$1 plyfs=$(realpath "${2:-target/release/plyfs}") dir=${3:-/var/tmp}
out=$(mktemp --directory --tmpdir="$dir" plyfs-profile.XXXXXX)
trap 'rm --recursive --force "$out"' EXIT

# server NAME COMMAND: a program to be measured in the place of fuse-overlayfs, called as that is:
# -o OPTIONS MNT. What it leaves in $out/NAME is about the last mount.
server() {
  printf '#!/bin/sh\n%s\n' "$2" >"$out/$1.sh"
  chmod +x "$out/$1.sh"
  "$plyfs" bench --dir "$dir" --workload "$workload" --rounds 1 --target "$1=$out/$1.sh" \
    >"$out/$1.said" || { cat "$out/$1.said" >&2; return 1; }
}

server requests "exec '$plyfs' mount -d -o \"\$2\" \"\$3\" 2>'$out/requests'"
echo "== requests that reached the server: count, milliseconds in it, kind"
sed --quiet 's/.* op="\([a-z_]*\)".* us=\([0-9]*\)$/\1 \2/p' "$out/requests" |
  awk '{ n[$1]++; us[$1] += $2 } END { for (op in n) printf "%9d %10.1f  %s\n", n[op],
    us[op] / 1000, op }' | sort --reverse --numeric-sort

server calls "exec strace -f -c -S time -o '$out/calls' '$plyfs' mount -f -o \"\$2\" \"\$3\""
echo "== system calls of the server"
head --lines=20 "$out/calls"

perf record --quiet --all-cpus --event cpu-clock -F 2000 --output "$out/perf" -- \
  "$plyfs" bench --dir "$dir" --workload "$workload" --rounds 5 --target plyfs >"$out/perf.said"
echo "== on the CPUs: share, program, where (the idle ones left out)"
perf report --input "$out/perf" --stdio --no-children --sort comm,dso,symbol 2>/dev/null |
  grep --invert-match --extended-regexp '^#|^$|swapper' | head --lines=40 || true # head had enough
cat "$out/perf.said"
