#!/usr/bin/env bash
# The long suites, by name; all of them without one: differential, powercut, copyup, stopped,
# limits, kills, pjdfstest, fsx, stress, fio, applications, images, podman, buildah, docker,
# runtimes, nested, migration, fuzz, figures, engine_figures.
# PLYFS_SECONDS (default 600) is the length of the differential, PLYFS_FUZZ_SECONDS (3600) that of
# each fuzz target. As root. A seed is printed with each run; PLYFS_SEED=N repeats it.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
. scripts/need.sh
need cc:gcc c++:g++ fusermount3:fuse3 mkfs.xfs:xfsprogs strace:strace python3:python3
need_cargo

# Random operations on a mounted plyfs, kernel overlayfs and a plain directory: the same results.
# Uppers that the kernel and fuse-overlayfs 1.x and 2.x wrote. Needs a mirror.
differential() {
  local dir
  need setpriv:util-linux unshare:util-linux
  command -v fuse-overlayfs >/dev/null || cargo install fuse-overlayfs
  dir=$(mktemp --directory)
  # shellcheck disable=SC2064 # now, not then
  trap "rm --recursive --force '$dir'" EXIT
  # Beside the one that is installed.
  (cd "$dir" && apt-get download -qq fuse-overlayfs && dpkg --extract fuse-overlayfs_*.deb .)
  export PLYFS_FUSE_OVERLAYFS=$dir/usr/bin/fuse-overlayfs:fuse-overlayfs
  export PLYFS_SECONDS=${PLYFS_SECONDS:-600}
  cargo test --release --features testkit --test differential -- --nocapture
}

# The power goes while programs write and sync, and while images and containers come and go:
# PLYFS_CUTS (300) moments each on ext4 and on XFS.
powercut() {
  need mkfs.ext4:e2fsprogs losetup:mount
  cargo build --release
  scripts/powercut.py --on plain,plyfs,volatile --rounds 5 --seconds 10 --cuts "${PLYFS_CUTS:-300}"
  scripts/powercut_store.py --cuts "${PLYFS_CUTS:-300}"
}

# Eight copy-ups of a gigabyte at a time (scripts/test.sh has smaller ones). 16 GiB of room.
copyup() {
  PLYFS_COPY_UP_MIB=1024 cargo test --release --test ceilings -- --nocapture copied_up
}

# A user's process, stopped before every call that changes something.
stopped() {
  PLYFS_STOPS=all cargo test --features testkit --test stopped -- --nocapture
}

# Other people's suites, on plyfs and on the plain ext4 below it; scripts/posix.py says what counts.
# pjdfstest asks for every rule of POSIX that can be asked for.
pjdfstest() {
  need mkfs.ext4:e2fsprogs cc:gcc
  dpkg-query --status libacl1-dev >/dev/null 2>&1 || apt-get install --yes -qq libacl1-dev
  command -v pjdfstest >/dev/null || cargo install pjdfstest
  posix pjdfstest
  posix pjdfstest --user
}

# Random reads, writes, mappings, truncations of files that others hold open and mapped.
fsx() {
  command -v fsx >/dev/null || cargo install fsx
  posix fsx
}

# The stressors of stress-ng's class "filesystem", each for PLYFS_STRESS_SECONDS (5).
stress() {
  need stress-ng:stress-ng
  posix stress
}

# What is written by one of many ways of writing is read back.
fio() {
  need fio:fio
  posix fio
}

# posix SUITE [--user]: on the file systems of PLYFS_POSIX_FS; overlayfs and fuse-overlayfs are others.
posix() {
  cargo build --release
  scripts/posix.py "$@" --fs "${PLYFS_POSIX_FS:-ext4,plyfs}" --dir "${TMPDIR:-/var/tmp}"
}

# A directory of a million entries, and 200,000 nodes at once with 20,000 descriptors. 4 GiB of
# room.
limits() {
  cargo build --release
  scripts/limits.py entries target/release/plyfs
  scripts/limits.py nodes target/release/plyfs
}

# The server of a mount, and the program at everything that it does to a store, killed
# PLYFS_KILL_ROUNDS (100) times each at random moments; a disk that is full at PLYFS_FULL_STEPS (40)
# amounts of space.
kills() {
  export PLYFS_KILL_ROUNDS=${PLYFS_KILL_ROUNDS:-100} PLYFS_FULL_STEPS=${PLYFS_FULL_STEPS:-40}
  export PLYFS_STORE_TEST_KILLS=${PLYFS_STORE_TEST_KILLS:-$PLYFS_KILL_ROUNDS}
  cargo test --release --features testkit --test mounted -- --nocapture killed::
  cargo test --release --features testkit --test store -- --nocapture crash:: killed:: full::
}

# What people run: package managers, git, databases, compilers. Needs mirrors, and 4 GiB of room.
applications() {
  cargo build --release
  TMPDIR=${TMPDIR:-/var/tmp} scripts/applications.sh target/release/plyfs
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

# Container engines and runtimes, on plyfs and on kernel overlayfs: scripts/runtimes.py. buildah and
# nested need a mirror and the python registry; nested installs podman in an image. 6 GiB of room.
podman() { engines podman rootless; }
buildah() { engines buildah rootless-build; }
docker() { engines docker; }
runtimes() { engines runtimes; }
nested() { engines nested; }
migration() { engines migration; }

# engines SUITE...: those of scripts/runtimes.py.
engines() {
  need_engines
  scripts/runtimes.py --plyfs "${CARGO_TARGET_DIR:-target}/release/plyfs" "$@"
}

# podman on plyfs and others, timed. Needs mirrors and 20 GiB of room.
engine_figures() {
  need_engines
  scripts/bench_engines.py --rounds "${PLYFS_ROUNDS:-3}" \
    --plyfs "${CARGO_TARGET_DIR:-target}/release/plyfs"
}

need_engines() {
  need podman:podman buildah:buildah skopeo:skopeo umoci:umoci runc:runc crun:crun \
    dockerd:docker.io bwrap:bubblewrap systemd-nspawn:systemd-container newuidmap:uidmap \
    fusermount3:fuse3 busybox:busybox-static mmdebstrap:mmdebstrap
  command -v fuse-overlayfs >/dev/null || cargo install fuse-overlayfs
  cargo build --release
}

# Each fuzz target (those of PLYFS_FUZZ_TARGETS) for an hour; what it finds lies in fuzz/artifacts.
fuzz() {
  local target dir
  if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "suites.sh: fuzz needs: rustup toolchain install nightly && cargo install cargo-fuzz" >&2
    return 1
  fi
  # In memory: targets make and remove thousands of small files a second.
  dir=$(mktemp --directory --tmpdir=/dev/shm plyfs-fuzz.XXXXXX)
  # shellcheck disable=SC2064 # now, not then
  trap "rm --recursive --force --one-file-system '$dir'" EXIT
  seeds fuzz/corpus
  for target in ${PLYFS_FUZZ_TARGETS:-$(cargo +nightly fuzz list)}; do
    mkdir --parents "fuzz/corpus/$target"
    TMPDIR=$dir cargo +nightly fuzz run "$target" -- -print_final_stats=1 -max_len=16384 \
      -max_total_time="${PLYFS_FUZZ_SECONDS:-3600}"
  done
}

# seeds DIR: what the fuzzer would take long to come upon, by target: sound archives and documents.
seeds() {
  local dir tree format
  dir=$(realpath --canonicalize-missing "$1") tree=$(mktemp --directory)
  mkdir --parents "$dir/unpack_tar" "$dir/manifest"
  (
    cd "$tree"
    mkdir --mode=750 a
    echo text >a/file
    ln a/file a/link
    ln --symbolic ../a/file a/symlink
    mkfifo a/fifo
    mknod a/device c 1 3
    truncate --size=40K sparse && printf x | dd of=sparse bs=1 seek=20000 conv=notrunc status=none
    touch a/.wh.gone a/.wh..wh..opq "a/$(printf 'n%.0s' {1..120})"
    setfattr --name=user.x --value=y a/file
    for format in ustar oldgnu gnu pax v7; do
      tar --create --file="$dir/unpack_tar/$format" --format=$format --blocking-factor=1 a \
        2>/dev/null || true # what a format cannot hold is left out
    done
    tar --create --file="$dir/unpack_tar/sparse" --format=pax --sparse --xattrs \
      --blocking-factor=1 sparse a/file a/link
  )
  rm --recursive --force "$tree"
  printf '%s\n' '{"schemaVersion":2,"manifests":[{"digest":"@m","size":@M}]}' \
    '{"schemaVersion":2,"config":{"digest":"@c","size":@C},"layers":[{"digest":"@l","size":@L}]}' \
    '{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["@l"]}}' \
    >"$dir/manifest/image"
}

# plyfs, kernel overlayfs and fuse-overlayfs on the same jobs.
figures() {
  need git:git cc:gcc tar:tar
  command -v fuse-overlayfs >/dev/null || cargo install fuse-overlayfs
  cargo build --release
  "${CARGO_TARGET_DIR:-target}/release/plyfs" bench --full --rounds "${PLYFS_ROUNDS:-5}" \
    --out "${PLYFS_OUT:-$(mktemp --directory --tmpdir plyfs-bench.XXXXXX)}"
}

[ $# -gt 0 ] || set -- differential powercut copyup stopped limits kills pjdfstest fsx stress fio \
  applications images podman buildah docker runtimes nested migration fuzz figures engine_figures
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
