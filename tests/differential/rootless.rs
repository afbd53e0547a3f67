//! Uppers written without privileges, in a user namespace: by kernel overlayfs with `userxattr`, by
//! fuse-overlayfs. `crowd.py` works on the peer's mount and in a plain directory; where it sees
//! something else there, it is made to stop before that. plyfs, in such a namespace too, must show
//! the plain directory's tree on that upper, and go on as it does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use plyfs::testkit::run::difference;

use super::peers::Differences;
use super::stand::{make_dir, sh, text};

const PROGRAM: &str = include_str!("crowd.py");
const STEPS: usize = 150;

/// What mounts the peer: `$stack` are the options that all understand.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Kernel overlayfs.
    Kernel,
    /// This program.
    FuseOverlayfs(PathBuf),
}

/// In a user namespace, where $1 is the number of steps: the peer's turn and plyfs's.
const SCRIPT: &str = r#"
cd "$BASE"
stack="lowerdir=$BASE/lower,upperdir=$BASE/upper,workdir=$BASE/work"
run() { python3 crowd.py run "$1" 0 "$2" "$3" >"$1.$4"; python3 crowd.py tree "$1" >"$1.$4.tree"; }
cp -a lower/. plain
peer() {
    if [ ! "$PEER" ]; then mount -t overlay none -o "$stack,userxattr" mnt; return; fi
    # It may end well without having mounted anything, while its server of before has not ended yet.
    for _ in {1..50}; do
        "$PEER" -o "$stack" mnt
        mountpoint -q mnt && return
        sleep 0.1
    done
}
peer
run mnt "$SEED" "$1" first
run plain "$SEED" "$1" first
umount mnt
peer
python3 crowd.py tree mnt >mnt.found.tree
umount mnt
"$PLYFS" mount -o "$stack" mnt
python3 crowd.py tree mnt >mnt.again.tree
run mnt "$SEED"1 150 second
run plain "$SEED"1 150 second
"$PLYFS" umount mnt
"#;

/// The program in `base`, where everybody may run it.
fn available(program: &Path, base: &Path) -> PathBuf {
    let found = Command::new("which").arg(program).output().unwrap().stdout;
    let found = PathBuf::from(String::from_utf8(found).unwrap().trim());
    let here = base.join(text(&found).replace('/', "-"));
    if !here.exists() {
        fs::copy(found, &here).unwrap();
    }
    here
}

/// A directory that the user 1000 owns, with all that is needed.
fn stand(base: &Path, seed: u64) -> tempfile::TempDir {
    let tmp = tempfile::tempdir_in(base).unwrap();
    let at = |name: &str| tmp.path().join(name);
    sh("chmod", &["755", text(tmp.path())]).unwrap();
    for name in ["lower", "upper", "work", "mnt", "plain"] {
        make_dir(&at(name));
    }
    fs::write(at("crowd.py"), PROGRAM).unwrap();
    let (crowd, lower) = (at("crowd.py"), at("lower"));
    let fill = [text(&crowd), "fill", text(&lower), "1", &seed.to_string(), "0"];
    sh("python3", &fill).unwrap();
    sh("chown", &["-R", "1000:1000", text(tmp.path())]).unwrap();
    tmp
}

/// Runs the script in namespaces of its own: what it prints when it fails.
fn in_namespace(base: &Path, peer: &Peer, seed: u64, steps: usize) -> Result<(), String> {
    let programs = base.parent().unwrap();
    let peer = match peer {
        Peer::Kernel => PathBuf::new(),
        Peer::FuseOverlayfs(program) => available(program, programs),
    };
    let outer = "mknod $BASE/fuse c 10 229; chmod 666 $BASE/fuse; mount --bind $BASE/fuse /dev/fuse
        exec setpriv --reuid=1000 --regid=1000 --clear-groups timeout --signal=KILL 120 \
            unshare --user --map-root-user --mount bash -e -c \"$SCRIPT\" script \"$STEPS\"";
    let output = Command::new("unshare")
        .args(["--mount", "bash", "-e", "-c", outer])
        .env("BASE", base)
        .env("PEER", peer)
        .env("PLYFS", available(Path::new(env!("CARGO_BIN_EXE_plyfs")), programs))
        .env("SCRIPT", SCRIPT)
        .env("STEPS", steps.to_string())
        .env("SEED", seed.to_string())
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The lines of `tree` for what is no hard link in the tree `before`: of a hard link of the layers,
/// fuse-overlayfs writes a copy under one name, and only remembers the others while it runs.
fn only_named_once(before: &str, tree: &str) -> String {
    let linked = |line: &&str| {
        let name = line.split(' ').next();
        before.lines().any(|it| it.split(' ').next() == name && !it.contains(" x1 "))
    };
    let dir = |line: &&str| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with('4'));
    tree.lines()
        .filter(|line| dir(line) || !linked(line))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// The lines of a tree without which names are one file, which fuse-overlayfs forgets.
fn unlinked(tree: &str) -> Vec<String> {
    let is_link = |word: &&str| word.starts_with('=') || word.starts_with('x');
    let line = |line: &str| line.split(' ').filter(|it| !is_link(it)).collect::<Vec<_>>().join(" ");
    tree.lines().map(line).collect()
}

/// One case; false if nothing could be compared.
pub(crate) fn one_case(peer: &Peer, seed: u64, base: &Path, differences: &mut Differences) -> bool {
    let told = format!("PLYFS_SEED={seed}, {peer:?} without privileges");
    let mut steps = STEPS;
    loop {
        let tmp = stand(base, seed);
        let read = |name: &str| fs::read_to_string(tmp.path().join(name)).unwrap_or_default();
        let ran = in_namespace(tmp.path(), peer, seed, steps);
        let (theirs, plain) = (read("mnt.first"), read("plain.first"));
        let differs = theirs.lines().zip(plain.lines()).position(|(one, other)| one != other);
        if let Some(line) = differs {
            let verb = plain.lines().nth(line).and_then(|line| line.split(' ').nth(1));
            let verb = format!("{peer:?}: {}", verb.unwrap_or("?"));
            *differences.entry(verb).or_default() += 1;
            if line == 0 {
                return false;
            }
            steps = line;
            continue;
        }
        if read("mnt.first.tree") != read("plain.first.tree") || plain.is_empty() {
            *differences.entry(format!("{peer:?}: the tree")).or_default() += 1;
            if steps < 10 {
                return false;
            }
            steps /= 2;
            continue;
        }
        ran.unwrap_or_else(|error| panic!("{told}: {error}"));
        if read("mnt.found.tree") != read("plain.first.tree") {
            *differences.entry(format!("{peer:?}: after a remount")).or_default() += 1;
            let before = read("plain.first.tree");
            let texts = [&before, &read("mnt.found.tree")].map(|tree| unlinked(tree));
            let wrong = unlinked(&only_named_once(&before, &read("mnt.again.tree")));
            let wrong: Vec<_> =
                wrong.iter().filter(|it| !texts.iter().any(|text| text.contains(it))).collect();
            assert!(wrong.is_empty(), "{told}: neither there nor found again: {wrong:#?}");
            return true;
        }
        let (before, again) = (read("plain.first.tree"), read("mnt.again.tree"));
        if matches!(peer, Peer::FuseOverlayfs(_)) && before != again {
            *differences.entry(format!("{peer:?}: hard links of the layers")).or_default() += 1;
            let [expected, got] = [&before, &again].map(|tree| only_named_once(&before, tree));
            assert!(got == expected, "{told}:\n{}", difference(&expected, &got));
            return true;
        }
        let pairs = [
            ("mnt.again.tree", "plain.first.tree"),
            ("mnt.second", "plain.second"),
            ("mnt.second.tree", "plain.second.tree"),
        ];
        for (ours, plain) in pairs {
            let (got, expected) = (read(ours), read(plain));
            assert!(got == expected, "{told}: {ours}\n{}", difference(&expected, &got));
        }
        assert!(read("mnt.second").lines().count() == 150, "{told}: nothing was done");
        return true;
    }
}
