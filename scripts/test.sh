#!/usr/bin/env bash
# Every check of the project, mounted tests included when root with /dev/fuse. A check that is no
# test (formatting, lints, documentation) counts as one. The last line is the sum.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
# Whoever is started by nohup, or in the background of a script, ignores signals that tests send.
[ -n "${PLYFS_SIGNALS:-}" ] || exec env --default-signal PLYFS_SIGNALS=default scripts/test.sh "$@"
. scripts/need.sh
need cc:gcc c++:g++ fusermount3:fuse3 mkfs.xfs:xfsprogs mkfs.ext4:e2fsprogs mount:mount \
  mkfs.btrfs:btrfs-progs fuse-overlayfs:fuse-overlayfs \
  setfattr:attr setfacl:acl setcap:libcap2-bin strace:strace unshare:util-linux \
  python3:python3 busybox:busybox-static umoci:umoci skopeo:skopeo buildah:buildah \
  setpriv:util-linux nsenter:util-linux dockerd:docker.io docker:docker.io podman:podman runc:runc \
  crun:crun bwrap:bubblewrap newuidmap:uidmap systemd-nspawn:systemd-container
need_cargo

log=$(mktemp)
trap 'rm --force "$log"' EXIT
passed=0 failed=0 skipped=0

# sum WORD: the total before WORD in cargo's `test result:` lines.
sum() { awk -v word="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ "^" word) n += $(i - 1) }
  END { print n + 0 }' "$log"; }

# step NAME COMMAND...: runs it, says how long it took, shows what it printed only when it failed.
step() {
  local name=$1 from=$SECONDS ok=0 p f s noted
  shift
  "$@" >"$log" 2>&1 || ok=$?
  p=$(sum passed) f=$(sum failed) s=$(sum ignored)
  noted=$(grep --count '^skipped: ' "$log" || true) # a test that found out that it cannot run here
  p=$((p - noted)) s=$((s + noted))
  if ! grep --quiet '^test result:' "$log"; then p=$((ok == 0)); fi
  if [ "$ok" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  if [ "$f" -gt 0 ]; then cat "$log"; fi
  grep '^skipped: ' "$log" | sort | uniq --count || true
  printf '%-34s %4d s  %s\n' "$name" $((SECONDS - from)) \
    "$([ "$f" -eq 0 ] && echo "ok ($p)" || echo "FAILED ($f)")"
}

tests=(cargo test --quiet --features testkit)
step 'format' cargo fmt --check
step 'clippy' cargo clippy --quiet --all-targets -- -D warnings
step 'clippy, all features' cargo clippy --quiet --all-targets --all-features -- -D warnings
# With private items, for those who work here: public ones may link to them.
export RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links'
step 'documentation' cargo doc --quiet --no-deps --all-features --document-private-items
step 'build of the tests' "${tests[@]}" --no-run
step 'unit tests' "${tests[@]}" --lib --bins -- --show-output
for file in tests/*.rs tests/*/main.rs; do
  [ -e "$file" ] || continue
  name=${file#tests/} name=${name%/main.rs}
  step "tests/${name%.rs}" "${tests[@]}" --test "${name%.rs}" -- --show-output
done
# What the crate fuser cannot say is left out (docs/SEMANTICS.md has the reasons).
step 'tests/mounted, driver fuser' env PLYFS_DRIVER=fuser "${tests[@]}" --test mounted -- \
  --show-output --skip line_27_handles_are --skip line_31_a_file_without_a_name \
  --skip line_51_who_is_killed --skip line_54_the_mount_can_be --skip an_unprivileged_mount_is
step 'power cuts' env PLYFS="${CARGO_TARGET_DIR:-target}/debug/plyfs" \
  scripts/powercut.py --fs ext4 --on plyfs,volatile --rounds 2 --seconds 2 --cuts 12
# A few steps of each program that runs containers; scripts/suites.sh has the rest.
step 'container engines' scripts/runtimes.py --short \
  --plyfs "${CARGO_TARGET_DIR:-target}/debug/plyfs" runtimes podman rootless buildah docker
step 'examples in documentation' "${tests[@]}" --doc
step 'micro-benchmarks, each once' "${tests[@]}" --bench micro
# The bodies of the fuzz targets run above, as tests on seeds; this says that the targets compile.
step 'fuzz targets' cargo check --quiet --manifest-path fuzz/Cargo.toml --target-dir target/fuzz

if [ "$(id --user)" -eq 0 ] && [ -c /dev/fuse ] && [ "$skipped" -gt 0 ]; then
  echo "as root with /dev/fuse nothing may be skipped" && failed=$((failed + 1))
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
