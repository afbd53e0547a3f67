#!/usr/bin/env bash
# A tour on a real root filesystem: three layers, two containers over them, apt-get inside, what
# each holds, remount, removal; and the proof that no layer changed. Each step is checked; the
# first that fails ends the tour. As root. PLYFS=/path/to/plyfs uses that one instead of building.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
. scripts/need.sh

say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }
show() { sed 's/^/        /'; }
fail() { echo "quickstart: $*" >&2; exit 1; }
same() { [ "$1" = "$2" ] || fail "$3: expected '$2', found '$1'"; }
has() { grep --quiet --fixed-strings -- "$2" <<<"$1" || fail "$3: '$2' is missing in: $1"; }
gone() { if [ -e "$1" ] || [ -L "$1" ]; then fail "$1 is there and should not be"; fi; }
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

need setfattr:attr fusermount3:fuse3 cc:gcc mmdebstrap:mmdebstrap
if [ -z "${PLYFS:-}" ]; then
  need_cargo
  say "cargo build --release"
  cargo build --release --quiet
  PLYFS=$PWD/target/release/plyfs
fi
SECONDS=0
plyfs() { "$PLYFS" "$@"; }
say "plyfs doctor: what this machine allows"
plyfs doctor | show

# manifest DIR [MORE]: all there is to see in a tree, inode numbers included; MORE in find's words.
manifest() {
  (cd "$1" && find . -printf "%P\t%y\t%m\t%U:%G\t%T@\t%i\t%l\t${2:-}\n" | LC_ALL=C sort)
  (cd "$1" && find . -type f -printf '%P\t%s\t%n\n' | LC_ALL=C sort)
  (cd "$1" && find . -type f -print0 | LC_ALL=C sort --zero-terminated |
    xargs --null --no-run-if-empty sha256sum)
  (cd "$1" && find . -print0 | LC_ALL=C sort --zero-terminated |
    xargs --null getfattr --no-dereference --dump --match=- --encoding=hex)
}
checksum() { manifest "$@" | tee "$dir/manifest" | sha256sum | cut --characters=1-64; }
# unchanged CHECKSUM MANIFEST WHAT: that the last manifest is that one; shows where it is not.
unchanged() {
  [ "$1" = "$(sha256sum <"$2" | cut --characters=1-64)" ] ||
    { diff "$2" "$dir/manifest" | sed 20q >&2; fail "$3 changed"; }
}

# The first layer: Debian by another tool, from the mirrors that apt has; busybox without a mirror.
l1=$dir/layer1 l2=$dir/layer2 l3=$dir/layer3
say "layer 1: a root filesystem by mmdebstrap (about half a minute)"
mapfile -t sources < <(grep --files-with-matches --no-messages /debian \
  /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources})
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
debian=yes
if ! mmdebstrap --variant=minbase --quiet "$suite" "$l1" "${sources[@]}" 2>"$dir/log"; then
  say "no mirror answers ($(tail --lines=1 "$dir/log")): busybox instead"
  debian=no
  rm --recursive --force --one-file-system "$l1"
  need busybox:busybox-static
  mkdir --parents "$l1"/{bin,etc,proc,dev,tmp,usr/share/{doc/busybox,misc}}
  cp "$(command -v busybox)" "$l1/bin/busybox"
  for name in sh cat ls tar; do ln --symbolic busybox "$l1/bin/$name"; done
  cp --recursive --dereference /usr/share/common-licenses "$l1/usr/share"
  cp /etc/passwd /etc/issue "$l1/etc"
  echo 'a document' >"$l1/usr/share/doc/busybox/copyright"
fi
say "         $(find "$l1" | wc --lines) entries, $(du --summarize --human-readable "$l1" | cut --fields=1)"

say "layer 2: deletes a file and a directory, replaces a directory, adds an application"
mkdir --parents "$l2"/{etc,usr/share/common-licenses,opt/app/data,opt/app/old}
mknod "$l2/etc/issue" c 0 0
mknod "$l2/usr/share/misc" c 0 0
setfattr --name=trusted.overlay.opaque --value=y "$l2/usr/share/common-licenses"
echo 'all ours' >"$l2/usr/share/common-licenses/OURS"
seq 10000 >"$l2/opt/app/data/numbers"
echo 'data of layer 2' >"$l2/opt/app/data/two"
echo 'old' >"$l2/opt/app/old/file"
echo 'version 2' >"$l2/opt/app/version"
ln "$l2/opt/app/version" "$l2/opt/app/version.link"
say "layer 3: replaces the application's data, deletes from layer 2, brings the file back"
mkdir --parents "$l3"/{etc,opt/app/data,opt/empty}
setfattr --name=trusted.overlay.opaque --value=y "$l3/opt/app/data"
setfattr --name=user.origin --value=layer3 "$l3/opt/empty"
mknod "$l3/opt/app/old" c 0 0
echo 'welcome to layer 3' >"$l3/etc/issue"
echo 'data of layer 3' >"$l3/opt/app/data/three"
ln --symbolic ../opt/app/data/three "$l3/etc/link"
before=()
for layer in "$l1" "$l2" "$l3"; do
  before+=("$(checksum "$layer" %C@)")
  mv "$dir/manifest" "$layer.manifest"
  say "         ${layer##*/}: sha256 ${before[-1]:0:24}..."
done

# container N: an upper, a work directory and a mount point; start N mounts it.
for n in 1 2; do mkdir "$dir/upper$n" "$dir/work$n" "$dir/root$n"; done
stack() { echo "lowerdir=$l3:$l2:$l1,upperdir=$dir/upper$1,workdir=$dir/work$1"; }
start() { plyfs mount -o "$(stack "$1")" "$dir/root$1"; }
r1=$dir/root1 r2=$dir/root2

say "container 1: plyfs mount -o lowerdir=L3:L2:L1,upperdir=U1,workdir=W1 M1"
start 1
same "$(cat "$r1/etc/issue")" 'welcome to layer 3' "a file deleted in one layer, made in the next"
same "$(ls "$r1/usr/share/common-licenses")" OURS "a replaced directory"
same "$(ls "$r1/opt/app/data")" three "a directory replaced by layer 3"
same "$(cat "$r1/etc/link")" 'data of layer 3' "a symbolic link into another directory"
gone "$r1/usr/share/misc"
gone "$r1/opt/app/old"

enter() { chroot "$r1" /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"; }
if [ "$debian" = yes ]; then
  say "         chroot: apt-get install hello"
  cp --dereference /etc/resolv.conf "$r1/etc/resolv.conf"
  mount --types proc proc "$r1/proc"
  mount --bind /dev "$r1/dev"
  { enter apt-get update --quiet
    enter DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends hello
  } >"$dir/log" 2>&1 || { cat "$dir/log"; fail "apt-get inside the container failed"; }
  same "$(enter hello)" 'Hello, world!' "the installed program"
  has "$(enter dpkg --verify hello 2>&1; echo intact)" intact "dpkg --verify"
  same "$(enter dpkg --audit)" '' "dpkg --audit"
  umount "$r1/dev" "$r1/proc"
else
  say "         chroot: unpacking an archive"
  tar --create --directory=/etc passwd group hostname | chroot "$r1" /bin/tar -x -C /opt/app
  same "$(cat "$r1/opt/app/passwd")" "$(cat /etc/passwd)" "the unpacked file"
fi

say "         edits, deletes, renames a directory of layer 1"
sed --in-place 's/layer 3/container 1/' "$r1/opt/app/data/three"
same "$(cat "$r1/etc/link")" 'data of container 1' "an edited file"
echo 'version 3' >"$r1/opt/app/version"
same "$(cat "$r1/opt/app/version.link")" 'version 3' "the other name of a hard link"
same "$(stat --format=%i "$r1/opt/app/version")" "$(stat --format=%i "$r1/opt/app/version.link")" \
  "one inode under two names"
chmod 0750 "$r1/opt/empty"
rm "$r1/etc/issue"
rm --recursive "$r1/usr/share/common-licenses"
docs=$(cd "$r1/usr/share/doc" && find . -type f | LC_ALL=C sort | sha256sum)
mv "$r1/usr/share/doc" "$r1/usr/share/papers"
gone "$r1/usr/share/doc"
gone "$r1/etc/issue"
gone "$r1/usr/share/common-licenses"
same "$(cd "$r1/usr/share/papers" && find . -type f | LC_ALL=C sort | sha256sum)" "$docs" \
  "what is in the renamed directory"

say "container 2 beside it, over the same layers"
start 2
same "$(cat "$r2/etc/issue")" 'welcome to layer 3' "container 2 sees no deletion of container 1"
same "$(cat "$r2/opt/app/version.link")" 'version 2' "container 2 sees no write of container 1"
gone "$r2/usr/share/papers"
gone "$r2/usr/bin/hello"
echo 'only here' >"$r2/opt/two"
gone "$r1/opt/two"

for n in 1 2; do
  changes=$(plyfs diff "$dir/upper$n" --lower "$l3:$l2:$l1")
  say "plyfs diff U$n --lower L3:L2:L1: $(wc --lines <<<"$changes") changes"
  awk '(/^R/ || !/var\/|\/share\/|hello/) && shown++ < 12' <<<"$changes" | show
  if [ "$n" = 2 ]; then has "$changes" opt/two "diff of upper 2"; continue; fi
  for path in etc/issue opt/app/version usr/share/papers usr/share/common-licenses; do
    has "$changes" "$path" "diff of upper 1"
  done
done

say "container 1 stopped (plyfs umount M1), checked, started again"
state=$(checksum "$r1")
mv "$dir/manifest" "$dir/state"
plyfs umount "$r1"
same "$(mounted | grep "^$r1\$" || true)" '' "unmounted"
plyfs check -o "$(stack 1)" | show
start 1
unchanged "$(checksum "$r1")" "$dir/state" "names, contents, inodes, times or xattrs"
say "         as it was: sha256 ${state:0:24}..."

say "container 1 removed: its upper and work directory deleted"
plyfs umount "$r1"
rm --recursive "$dir/upper1" "$dir/work1"
same "$(cat "$r2/opt/two")" 'only here' "container 2 lives"
echo 'and goes on' >>"$r2/opt/two"
same "$(tail --lines=1 "$r2/opt/two")" 'and goes on' "container 2 can write"
plyfs umount "$r2"
plyfs mount -o "lowerdir=$l3:$l2:$l1" "$r1"
same "$(cat "$r1/opt/app/version")" 'version 2' "the layers alone, read-only"
if touch "$r1/x" 2>/dev/null; then fail "a mount without an upper took a write"; fi
plyfs umount "$r1"

say "the layers, by checksum"
for n in 1 2 3; do
  unchanged "$(checksum "$dir/layer$n" %C@)" "$dir/layer$n.manifest" "layer $n"
  say "         layer$n: unchanged, sha256 ${before[n - 1]:0:24}..."
done
same "$(mounted)" '' "nothing left mounted"
say "done: everything held"
