//! Mounted by somebody who is not root, through fusermount3: the programs of `programs/` see what
//! they see in a plain directory there, too.

use std::fs;
use std::process::Command;

use super::alike::{assert_alike, fill};
use super::stand::{Stand, assert_ok, run};

/// The programs that need no privileges, with what fills the layer.
const PROGRAMS: [(&str, &str); 5] = [
    (
        "for f in one waited a e; do echo 0123456789 > $f; done; ln a b; ln e f",
        include_str!("programs/locks.py"),
    ),
    (
        "for f in 0 1 2 3 4 5 6 7 8 9 cut emptied private; do
            head -c 16384 /dev/zero | tr '\\0' x > $f; done; ln 8 link; echo SOURCE > source",
        include_str!("programs/mapped.py"),
    ),
    (
        "mkdir -p lower/deep team; echo f > lower/file; chmod 2777 team
            setfacl -m d:u::rwx,d:u:77:rwx,d:g::r-x,d:o::r-x team",
        include_str!("programs/nameless.py"),
    ),
    (
        "mkdir lower merged; touch lower/a merged/a
            for n in 0 2; do for f in f over alias withover; do printf 0123456789 > $f$n; done
            ln alias$n other$n; done",
        include_str!("programs/unlinked.py"),
    ),
    (
        "touch f; mkdir d; ln -s f link; mkfifo fifo
            for x in f d; do setfattr -n user.low -v low $x; done",
        include_str!("programs/attributes.py"),
    ),
];

#[test]
fn an_unprivileged_mount_is_a_plain_directory_too() {
    for (setup, text) in PROGRAMS {
        let stand = Stand::unmounted(&["lower"]);
        fs::create_dir(stand.path("plain")).unwrap();
        fill(&stand.path("lower"), setup);
        fill(&stand.path("plain"), setup);
        let text = concat!(include_str!("programs/prelude.py"), "\n").to_owned() + text;
        fs::write(stand.path("program"), text).unwrap();
        // The tests' plyfs may lie where others cannot go.
        let (built, here) = (env!("CARGO_BIN_EXE_plyfs"), stand.path("plyfs"));
        fs::hard_link(built, &here).or_else(|_| fs::copy(built, &here).map(drop)).unwrap();
        for dir in ["lower", "plain", "upper", "work", "mnt"] {
            run("chown", &[&"-R", &"1000:1000", &stand.path(dir)]);
        }
        // A device of our own in a mount namespace of our own: that of the machine may be root's.
        let script = format!(
            "cd '{base}'; mknod fuse c 10 229; chmod 666 fuse
            mount --make-rprivate /; mount --bind fuse /dev/fuse
            user() {{ setpriv --reuid=1000 --regid=1000 --clear-groups \"$@\"; }}
            user ./plyfs mount -o '{options}' mnt
            for dir in plain mnt; do
                user sh -c \"cd $dir && timeout 60 /usr/bin/python3 '{base}/program'\" \
                    > $dir.out || result=1
            done
            user ./plyfs umount mnt; exit $result",
            base = stand.path("").display(),
            options = stand.options(),
        );
        let mut shell = Command::new("unshare");
        assert_ok(&shell.args(["--mount", "bash", "-e", "-c", &script]).output().unwrap());
        let seen = |name: &str| fs::read_to_string(stand.path(name)).unwrap();
        assert_alike(&seen("mnt.out"), &seen("plain.out"));
        assert!(!seen("mnt.out").is_empty());
        stand.assert_work_is_clean();
    }
}
