#!/usr/bin/env bash
# Programs that people run, in a container of a Debian image: package managers, git, databases,
# compilers, archivers. Each verifies what it did by its own means; a line a program, the sum last.
# As root, with mirrors of Debian, PyPI and npm: scripts/applications.sh PLYFS [NAME...]
# shellcheck disable=SC2016 # what is in single quotes is expanded in the container
set -euo pipefail
plyfs=$(realpath "$1")
shift
cd "$(dirname "$(realpath "$0")")/.."
. scripts/need.sh
need mmdebstrap:mmdebstrap umoci:umoci fusermount3:fuse3

dir=$(mktemp --directory "${TMPDIR:-/var/tmp}/plyfs-applications.XXXXXX")
export PLYFS_ROOT=$dir/store
trap 'rm --recursive --force --one-file-system "$dir"' EXIT
passed=0 failed=0

# within SCRIPT: runs it in the container.
within() {
  local certificates=/etc/ssl/certs/ca-certificates.crt binds=()
  # Who sits behind a proxy with certificates of its own has them there.
  [ ! -e "$certificates" ] || binds=(-v "$certificates:/run/ca.crt:ro")
  "$plyfs" run apps "${binds[@]}" -e DEBIAN_FRONTEND=noninteractive -e PIP_CERT=/run/ca.crt \
    -e NODE_EXTRA_CA_CERTS=/run/ca.crt -e CARGO_HTTP_CAINFO=/run/ca.crt -e HOME=/root \
    -e GIT_AUTHOR_NAME=a -e GIT_AUTHOR_EMAIL=a@b -e GIT_COMMITTER_NAME=a \
    -e GIT_COMMITTER_EMAIL=a@b -- bash -euo pipefail -c "$1"
}

# try NAME SCRIPT: one program.
try() {
  local name=$1 from=$SECONDS
  case " ${chosen[*]} " in *" $name "* | "  " | *" all "*) ;; *) return 0 ;; esac
  if within "$2" >"$dir/log" 2>&1; then
    passed=$((passed + 1))
    printf '%-12s %4d s  ok\n' "$name" $((SECONDS - from))
  else
    failed=$((failed + 1))
    tail --lines=40 "$dir/log"
    printf '%-12s %4d s  FAILED\n' "$name" $((SECONDS - from))
  fi
}
chosen=("${@:-all}")

mapfile -t sources < <(grep --files-with-matches --no-messages /debian \
  /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources})
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
mmdebstrap --variant=minbase --quiet "$suite" "$dir/base.tar" "${sources[@]}"
umoci init --layout "$dir/layout"
umoci new --image "$dir/layout:debian"
umoci raw add-layer --image "$dir/layout:debian" "$dir/base.tar" >"$dir/log" 2>&1
"$plyfs" image import "$dir/layout" --name debian >/dev/null
"$plyfs" create debian apps >/dev/null

# All others need what this one installs.
within '
  apt-get update --quiet
  apt-get install --yes --no-install-recommends git sqlite3 postgresql postgresql-contrib gcc \
    libc6-dev make rsync python3-venv npm cargo attr acl ca-certificates
  apt-get upgrade --yes' >"$dir/log" 2>&1 || { tail --lines=40 "$dir/log"; exit 1; }
try apt '
  dpkg --audit
  # What a package says its files are, by their digests.
  test -z "$(dpkg --verify)"
  apt-get install --yes --reinstall coreutils libc6
  apt-get purge --yes attr
  test -z "$(dpkg --verify)"'
try git '
  cd /root && rm -rf one two && git init --quiet one && cd one
  for n in $(seq 400); do echo "$n $RANDOM" >"file-$n"; git add "file-$n"
    [ $((n % 40)) -ne 0 ] || git commit --quiet --message "$n"; done
  git branch side HEAD~3 && git checkout --quiet side && git rm --quiet file-1[0-9][0-9] &&
    git commit --quiet --message removed && git checkout --quiet - && git merge --quiet side
  git clone --quiet --no-hardlinks /root/one /root/two
  git gc --quiet --aggressive --prune=now && git fsck --full --strict
  cd ../two && git fsck --full --strict && test -z "$(git status --porcelain)"
  diff --recursive --exclude .git /root/one /root/two'
try sqlite '
  cd /root && rm -f db*
  for mode in wal delete; do
    sqlite3 db-$mode "PRAGMA journal_mode=$mode; CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB);"
    for writer in 1 2 3; do
      { echo ".timeout 60000"
        for n in $(seq 200); do echo "INSERT INTO t (b) VALUES (randomblob(3000));"; done
      } | sqlite3 db-$mode &
    done
    wait
    test "$(sqlite3 db-$mode "SELECT count(*) FROM t")" = 600
    sqlite3 db-$mode "DELETE FROM t WHERE n % 2; VACUUM;"
    test "$(sqlite3 db-$mode "PRAGMA integrity_check")" = ok
  done'
try postgresql '
  bin=$(echo /usr/lib/postgresql/*/bin) data=/root/pg socket=/tmp
  rm -rf $data && install --directory --owner=postgres $data && chmod 711 /root
  as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
  as $bin/initdb --pgdata=$data --data-checksums
  start() { as $bin/pg_ctl --pgdata=$data --wait --log=$data/log --options="-k $socket -h \"\"" start; }
  start
  as $bin/pgbench --host=$socket --initialize --scale=5 postgres
  as $bin/pgbench --host=$socket --client=4 --time=10 postgres
  as $bin/pgbench --host=$socket --client=4 --time=20 postgres & load=$!
  sleep 5
  as $bin/pg_ctl --pgdata=$data --mode=immediate stop
  wait $load || true
  start
  as $bin/pg_amcheck --host=$socket --install-missing --heapallindexed postgres
  test "$(as $bin/psql --host=$socket --tuples-only --no-align --command \
    "SELECT sum(abalance) = (SELECT sum(tbalance) FROM pgbench_tellers)
     AND sum(abalance) = (SELECT sum(bbalance) FROM pgbench_branches) FROM pgbench_accounts" \
    postgres)" = t
  as $bin/pg_ctl --pgdata=$data --wait --mode=fast stop
  as $bin/pg_checksums --check --pgdata=$data'
try gcc '
  mkdir -p /root/c && cd /root/c
  { echo "all:"; for n in $(seq 120); do
      echo "int f$n(int x) { return x + $n; }" >f$n.c
      printf "all: f%d.o\n" $n; done
    printf "all:\n\tar rcs libf.a *.o && gcc -o main main.c libf.a && ./main\n"; } >Makefile
  echo "int f60(int); int main(void) { return f60(1) != 61; }" >main.c
  make --jobs=2 && touch f7.c && make && test -z "$(make --question f7.o || echo old)"'
try cargo '
  cd /root && rm -rf hello && cargo new --quiet --vcs none hello && cd hello && cargo build --quiet
  test "$(target/debug/hello)" = "Hello, world!"
  cargo build --quiet 2>&1 && cargo clean && cargo test --quiet'
try pip '
  cd /root && rm -rf venv && python3 -m venv venv && . venv/bin/activate
  pip install --quiet flask pyyaml numpy && pip check && pip install --quiet --force-reinstall flask
  python3 -c "import flask, yaml, numpy; assert numpy.arange(5).sum() == 10"
  pip uninstall --quiet --yes numpy && ! python3 -c "import numpy" 2>/dev/null'
try npm '
  rm -rf /root/npm && mkdir /root/npm && cd /root/npm && npm init --yes >/dev/null
  npm install --no-audit --no-fund express typescript && npm ls
  npm ci --no-audit --no-fund && npm ls && node -e "require(\"express\")()"
  npx tsc --version'
try copies '
  cd /root && rm -rf copy tree && mkdir copy tree
  setfattr --name=user.note --value=1 /usr/share/doc 2>/dev/null || true
  setfacl --modify=u:33:rx /usr/share/perl5 || true
  rsync -aHAX --delete /usr/ copy/
  test -z "$(rsync -aHAXn --checksum --itemize-changes --delete /usr/ copy/)"
  tar --create --acls --xattrs --directory=/usr share lib | tar --extract --acls --xattrs --directory=tree
  tar --create --acls --xattrs --directory=/usr share lib | tar --compare --acls --xattrs --directory=tree
  cp --archive tree tree2 && diff --recursive --no-dereference tree tree2'
try removal '
  rm -rf /root /usr/share /usr/lib/python3 /var/lib/postgresql
  test ! -e /root && test ! -e /usr/share
  mkdir /usr/share && test -z "$(ls -A /usr/share)"'

# The image below is what it was.
if "$plyfs" check; then
  passed=$((passed + 1))
else
  failed=$((failed + 1))
fi
"$plyfs" rm apps >/dev/null
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
