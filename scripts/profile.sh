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

# The first eight bytes of what is read from /dev/fuse are a request's length and its kind.
server requests "exec strace -f -e trace=read -P /dev/fuse -xx -s 8 -o '$out/requests' \
  '$plyfs' mount -f -o \"\$2\" \"\$3\""
echo "== requests that reached the server: count, kind (FUSE's opcode)"
kinds='1 LOOKUP 2 FORGET 3 GETATTR 4 SETATTR 5 READLINK 6 SYMLINK 8 MKNOD 9 MKDIR 10 UNLINK 11 RMDIR
  12 RENAME 13 LINK 14 OPEN 15 READ 16 WRITE 17 STATFS 18 RELEASE 20 FSYNC 21 SETXATTR 22 GETXATTR
  23 LISTXATTR 24 REMOVEXATTR 25 FLUSH 26 INIT 27 OPENDIR 28 READDIR 29 RELEASEDIR 30 FSYNCDIR
  35 CREATE 36 INTERRUPT 38 DESTROY 42 BATCH_FORGET 43 FALLOCATE 44 READDIRPLUS 45 RENAME2 46 LSEEK
  47 COPY_FILE_RANGE 50 SYNCFS 51 TMPFILE 52 STATX'
sed --quiet 's/.*"\(\\x..\)\{4\}\\x\(..\).*/\2/p' "$out/requests" | sort | uniq --count |
  sort --reverse --numeric-sort | while read -r count kind; do
  kind=$((16#$kind))
  name=$(tr --squeeze-repeats ' \n' '\n' <<<"$kinds" | grep --line-regexp --after-context=1 "$kind") ||
    name=unknown
  printf '%9d  %s (%d)\n' "$count" "${name##*$'\n'}" "$kind"
done

server calls "exec strace -f -c -S time -o '$out/calls' '$plyfs' mount -f -o \"\$2\" \"\$3\""
echo "== system calls of the server"
head --lines=20 "$out/calls"

perf record --quiet --all-cpus --event cpu-clock -F 2000 --output "$out/perf" -- \
  "$plyfs" bench --dir "$dir" --workload "$workload" --rounds 15 --target plyfs >"$out/perf.said"
# shares SORT [MORE...]: a table of perf's, without what it says besides.
shares() {
  perf report --input "$out/perf" --stdio --no-children --sort "$@" 2>/dev/null |
    grep --invert-match --extended-regexp '^#|^$|swapper' | head --lines=25 || true # had enough
}
echo "== on the CPUs, by thread: plyfs-fuse-N serve; plyfs is the client, and makes the layers"
shares comm
echo "== where in the server, and in the kernel for it"
shares dso,symbol --comms plyfs-fuse-0,plyfs-fuse-1,plyfs-fuse-2,plyfs-fuse-3,plyfs-fuse-4
cat "$out/perf.said"
