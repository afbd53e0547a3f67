#!/usr/bin/env bash
# The long suites, by name; all of them without one: differential, copyup, images, fuzz, figures.
# PLYFS_SECONDS (default 600) is the length of the differential, PLYFS_FUZZ_SECONDS (3600) that of
# each fuzz target. As root. A seed is printed with each run; PLYFS_SEED=N repeats it.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
. scripts/need.sh
need cc:gcc c++:g++ fusermount3:fuse3 mkfs.xfs:xfsprogs strace:strace python3:python3
need_cargo

# Random operations on a mounted plyfs, kernel overlayfs and a plain directory: the same results.
differential() {
  export PLYFS_SECONDS=${PLYFS_SECONDS:-600}
  cargo test --release --features testkit --test differential -- --nocapture
}

# Eight copy-ups of a gigabyte at a time (scripts/test.sh has smaller ones). 16 GiB of room.
copyup() {
  PLYFS_COPY_UP_MIB=1024 cargo test --release --test ceilings -- --nocapture copied_up
}

# Images of other people's tools, large ones too: what plyfs shows of them is what umoci unpacks.
# Needs a mirror, and the registries of python and npm. 8 GiB of room.
images() {
  local dir
  need mmdebstrap:mmdebstrap umoci:umoci skopeo:skopeo buildah:buildah busybox:busybox-static \
    pip:python3-pip npm:npm
  dir=$(mktemp --directory --tmpdir="${TMPDIR:-/var/tmp}" plyfs-images.XXXXXX)
  # shellcheck disable=SC2064 # now, not then
  trap "rm --recursive --force --one-file-system '$dir'" EXIT
  cargo build --release
  scripts/images.py make "$dir" small odd tall buildah docker zstd debian app
  scripts/images.py check "$dir" target/release/plyfs
}

# Each fuzz target for an hour; what it finds lies in fuzz/artifacts.
fuzz() {
  local target
  if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "suites.sh: fuzz needs: rustup toolchain install nightly && cargo install cargo-fuzz" >&2
    return 1
  fi
  for target in $(cargo +nightly fuzz list); do
    cargo +nightly fuzz run "$target" -- -max_total_time="${PLYFS_FUZZ_SECONDS:-3600}" \
      -max_len=4096 -print_final_stats=1
  done
}

# plyfs, kernel overlayfs and fuse-overlayfs on the same jobs.
figures() {
  command -v fuse-overlayfs >/dev/null || cargo install fuse-overlayfs
  cargo build --release
  scripts/bench.py --rounds "${PLYFS_ROUNDS:-5}"
}

[ $# -gt 0 ] || set -- differential copyup images fuzz figures
failed=()
for suite in "$@"; do
  from=$SECONDS
  echo "== $suite"
  declare -F "$suite" >/dev/null || { echo "suites.sh: there is no suite $suite" >&2; exit 2; }
  # In a shell of its own: `set -e` does not hold in a function called from a condition.
  set +e
  (set -e; "$suite")
  result=$?
  set -e
  [ "$result" -eq 0 ] || failed+=("$suite")
  echo "== $suite: $((SECONDS - from)) s, $([ "$result" -eq 0 ] && echo passed || echo FAILED)"
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
