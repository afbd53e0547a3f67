#!/usr/bin/env bash
# A tour on a real image: Debian by mmdebstrap and umoci, three layers with deletions; import, run
# with apt-get inside, diff, commit, export; what other tools make of the export; and the proof that
# the first image did not change. Each step is checked; the first that fails ends the tour. As root.
# PLYFS=/path/to/plyfs uses that one instead of building.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
. scripts/need.sh

say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }
show() { sed 's/^/        /'; }
fail() { echo "quickstart: $*" >&2; exit 1; }
same() { [ "$1" = "$2" ] || fail "$3: expected '$2', found '$1'"; }
has() { grep --quiet --fixed-strings -- "$2" <<<"$1" || fail "$3: '$2' is missing in: $1"; }
mounted() { cut --delimiter=' ' --fields=2 /proc/self/mounts | grep "^$dir/" || true; }

[ "$(id --user)" -eq 0 ] || fail "mounting needs root: sudo $0"
[ -c /dev/fuse ] || fail "/dev/fuse is missing: modprobe fuse (in a container: --device /dev/fuse)"
dir=$(mktemp --directory "${TMPDIR:-/var/tmp}/plyfs-quickstart.XXXXXX")
cleanup() {
  mounted | tac | while read -r at; do umount "$at" 2>/dev/null || umount --lazy "$at"; done
  rm --recursive --force --one-file-system "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

need setfattr:attr fusermount3:fuse3 cc:gcc mmdebstrap:mmdebstrap umoci:umoci skopeo:skopeo \
  python3:python3
if [ -z "${PLYFS:-}" ]; then
  need_cargo
  say "cargo build --release"
  cargo build --release --quiet
  PLYFS=$(realpath "${CARGO_TARGET_DIR:-target}")/release/plyfs
fi
SECONDS=0
export PLYFS_ROOT=$dir/store # a store of its own; without it, /var/lib/plyfs
plyfs() { "$PLYFS" "$@"; }
quiet() { "$@" >"$dir/log" 2>&1 || { cat "$dir/log" >&2; fail "$1 failed"; }; }
say "plyfs doctor: what this machine allows"
plyfs doctor | show

# An image made by other tools: the first layer from the mirrors that apt has (busybox without a
# mirror), two more by umoci.
layout=$dir/layout
quiet umoci init --layout "$layout"
quiet umoci new --image "$layout:debian"
say "layer 1: a root filesystem by mmdebstrap (about half a minute)"
mapfile -t sources < <(grep --files-with-matches --no-messages /debian \
  /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources})
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
debian=yes
if ! mmdebstrap --variant=minbase --quiet "$suite" "$dir/1.tar" "${sources[@]}" 2>"$dir/log"; then
  say "no mirror answers ($(tail --lines=1 "$dir/log")): busybox instead"
  debian=no
  need busybox:busybox-static
  mkdir --parents "$dir"/1/{bin,etc,opt,proc,dev,sys,tmp,usr/share/{doc/busybox,misc}}
  cp "$(command -v busybox)" "$dir/1/bin/busybox"
  for name in sh cat ls tar bash; do ln --symbolic busybox "$dir/1/bin/$name"; done
  cp --recursive --dereference /usr/share/common-licenses "$dir/1/usr/share"
  cp /etc/passwd /etc/issue "$dir/1/etc"
  tar --create --file="$dir/1.tar" --directory="$dir/1" .
fi
quiet umoci raw add-layer --image "$layout:debian" "$dir/1.tar"
say "layer 2 and 3 by umoci: deletions, a replaced directory, an application"
quiet umoci unpack --image "$layout:debian" "$dir/bundle"
root=$dir/bundle/rootfs
rm --recursive "$root/etc/issue" "$root/usr/share/misc"
mkdir --parents "$root/opt/app/old"
seq 10000 >"$root/opt/app/numbers"
echo 'version 2' >"$root/opt/app/version"
ln "$root/opt/app/version" "$root/opt/app/version.link"
quiet umoci repack --refresh-bundle --image "$layout:debian" "$dir/bundle"
rm --recursive "$root/opt/app/old" "$root/usr/share/common-licenses"
mkdir "$root/usr/share/common-licenses"
echo 'all ours' >"$root/usr/share/common-licenses/OURS"
echo 'welcome to layer 3' >"$root/etc/issue"
setfattr --name=user.origin --value=layer3 "$root/opt/app"
quiet umoci repack --refresh-bundle --image "$layout:debian" "$dir/bundle"
quiet umoci config --image "$layout:debian" --config.env GREETING=hello --config.cmd /bin/bash
quiet skopeo copy "oci:$layout:debian" "oci-archive:$dir/debian.oci.tar:debian"
say "        debian.oci.tar: $(du --human-readable "$dir/debian.oci.tar" | cut --fields=1)"

say "plyfs image import debian.oci.tar"
plyfs image import "$dir/debian.oci.tar" --name debian | show
plyfs image ls | show
id=$(plyfs image inspect debian | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')

# looks IMAGE: a sum over all that a tree unpacked from the image shows.
looks() {
  plyfs create "$1" looked-at >/dev/null
  mkdir --parents "$dir/mnt"
  plyfs mount looked-at "$dir/mnt" -o ro
  (cd "$dir/mnt" && find . -printf '%P\t%y\t%m\t%U:%G\t%T@\t%l\t%n\n' | LC_ALL=C sort
    find . -type f -print0 | LC_ALL=C sort --zero-terminated | xargs --null sha256sum
    find . -print0 | LC_ALL=C sort --zero-terminated |
      xargs --null getfattr --no-dereference --dump --match=- --encoding=hex) | sha256sum
  plyfs umount looked-at
  plyfs rm looked-at >/dev/null
}
before=$(looks debian)
say "a container, compared with what umoci unpacks: types, modes, owners, times, links, contents"
plyfs create debian compared >/dev/null
plyfs mount compared "$dir/mnt"
rm --recursive "$dir/bundle"
quiet umoci unpack --image "$layout:debian" "$dir/bundle"
scripts/same_tree.py "$dir/bundle/rootfs" "$dir/mnt" | show
plyfs umount compared
plyfs rm compared | show

say "plyfs run debian: a command in a container that is gone afterwards"
# shellcheck disable=SC2016 # expanded inside
same "$(plyfs run debian -- /bin/sh -c 'echo $GREETING; cat /etc/issue; echo $$ >/only-here')" \
  $'hello\nwelcome to layer 3' "the image's environment and its files"
same "$(plyfs run debian -- /bin/ls /usr/share/common-licenses)" OURS "a replaced directory"
code=0
plyfs run debian -- /bin/sh -c 'exit 42' || code=$?
same "$code" 42 "the command's exit status"
same "$(plyfs ls --json)" '' "nothing is left of it"

say "plyfs run debian --keep web: a container that stays"
if [ "$debian" = yes ]; then
  say "        apt-get install hello"
  quiet plyfs run debian --keep web -e DEBIAN_FRONTEND=noninteractive -- bash -euc '
    apt-get update --quiet
    apt-get install --yes --no-install-recommends hello
    dpkg --verify hello; dpkg --audit'
  same "$(plyfs run web -- hello)" 'Hello, world!' "the installed program"
else
  plyfs run debian --keep web -- /bin/sh -c 'echo "Hello, world!" >/opt/hello'
  same "$(plyfs run web -- cat /opt/hello)" 'Hello, world!' "what was written"
fi
plyfs run web -- /bin/sh -euc '
  rm /etc/issue
  mv /usr/share/common-licenses /usr/share/licenses
  echo "version 3" >/opt/app/version
  chmod 0750 /opt/app'
plyfs ls | show

say "plyfs diff web"
changes=$(plyfs diff web)
awk '(/^R/ || !/var\/|\/share\/(doc|locale|man|info|lintian)|hello/) && shown++ < 12' <<<"$changes" | show
for path in etc/issue opt/app/version usr/share/licenses; do
  has "$changes" "$path" "the diff"
done

say "plyfs commit web web:2, twice: the same image"
export SOURCE_DATE_EPOCH=1700000000
one=$(plyfs commit web web:2)
two=$(plyfs commit web web:again)
same "$two" "$one" "an image committed twice"
plyfs rm web | show
plyfs image rm web:again | show

say "plyfs image export web:2 web.oci.tar; skopeo and umoci read it"
plyfs image export web:2 "$dir/web.oci.tar"
skopeo inspect --config "oci-archive:$dir/web.oci.tar" >"$dir/log"
quiet skopeo copy "oci-archive:$dir/web.oci.tar" "oci:$dir/back:web"
rm --recursive "$dir/bundle"
quiet umoci unpack --image "$dir/back:web" "$dir/bundle"
root=$dir/bundle/rootfs
same "$(cat "$root/opt/app/version" "$root/opt/app/version.link")" $'version 3\nversion 3' "a link"
same "$(ls "$root/usr/share/licenses")" OURS "a directory that was renamed"
for gone in etc/issue usr/share/common-licenses only-here; do
  if [ -e "$root/$gone" ]; then fail "$gone came back in the export"; fi
done
plyfs create web:2 compared >/dev/null
plyfs mount compared "$dir/mnt"
scripts/same_tree.py "$root" "$dir/mnt" | show
plyfs umount compared
plyfs rm compared | show
say "plyfs image export debian, for docker load; the same image when it comes back"
plyfs image export debian "$dir/debian.docker.tar" --format docker-archive
quiet skopeo inspect "docker-archive:$dir/debian.docker.tar"
"$PLYFS" --root "$dir/other" image import "$dir/debian.docker.tar" | show
same "$("$PLYFS" --root "$dir/other" image ls --json |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')" "$id" "the image's id"

say "the first image: unchanged?"
same "$(looks debian)" "$before" "what a container of the first image shows"
plyfs check | show
say "        yes, and every layer gives back the bytes that it was imported from"
plyfs image rm web:2 debian | show
same "$(find "$PLYFS_ROOT"/{trees,snapshots,trash} -mindepth 1)" '' "an empty store"
same "$(mounted)" '' "nothing left mounted"
say "done: everything held"
