//! Mounted by somebody who is not root, through fusermount3, or by the root of a user namespace
//! with subordinate ids, as podman runs us: the programs of `programs/` see what they see in a
//! plain directory there, too.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use super::alike::{assert_alike, fill};
use super::stand::{Stand, assert_ok, fingerprint, names, run};

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

/// Who mounts, and where the upper layer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// A user.
    User,
    /// A user, for whom no filesystem takes extended attributes.
    Bare,
    /// A user, with the upper layer on a tmpfs.
    OnTmpfs,
    /// The root of a user namespace.
    Root,
}

/// A layer and a plain directory of the same content, both of which belong to a user.
struct Alone(Stand);

impl Alone {
    fn new(setup: &str, program: &str) -> Self {
        let stand = Stand::unmounted(&["lower"]);
        fs::create_dir(stand.path("plain")).unwrap();
        fs::create_dir(stand.path("tmp")).unwrap();
        fill(&stand.path("lower"), setup);
        fill(&stand.path("plain"), setup);
        let text = concat!(include_str!("programs/prelude.py"), "\n").to_owned() + program;
        fs::write(stand.path("program"), text).unwrap();
        fs::write(stand.path("filtered"), include_str!("programs/filtered.py")).unwrap();
        // The tests' plyfs may lie where others cannot go.
        let (built, here) = (env!("CARGO_BIN_EXE_plyfs"), stand.path("plyfs"));
        fs::hard_link(built, &here).or_else(|_| fs::copy(built, &here).map(drop)).unwrap();
        for dir in ["lower", "plain", "upper", "work", "mnt"] {
            run("chown", &[&"-R", &"1000:1000", &stand.path(dir)]);
        }
        fs::set_permissions(stand.path(""), fs::Permissions::from_mode(0o777)).unwrap();
        Self(stand)
    }

    /// Runs a script as somebody. In it, `mounted` mounts, `unmounted` unmounts, and `both NAME
    /// WORD..` runs the program in both directories, with what it says in DIRECTORY.NAME.
    fn run(&self, who: Who, script: &str) -> std::process::Output {
        let stand = &self.0;
        let mut options = stand.options();
        if who == Who::OnTmpfs {
            options = options.replace("/upper", "/tmp/upper").replace("/work", "/tmp/work");
        }
        let inner = format!(
            "cd '{base}'
            mounted() {{ ./plyfs mount -o '{options}'$1 mnt; }}
            unmounted() {{ ./plyfs umount mnt; }}
            both() {{ local name=$1 dir; shift; for dir in plain mnt; do
                (cd $dir && timeout 60 /usr/bin/python3 ../program \"$@\") > $dir.$name; done; }}
            {script}",
            base = stand.path("").display(),
        );
        fs::write(stand.path("inner"), inner).unwrap();
        let user = "setpriv --reuid=1000 --regid=1000 --clear-groups";
        // A device of our own in a mount namespace of our own: that of the machine may be root's.
        let outer = format!(
            "cd '{base}'; [ -e fuse ] || mknod fuse c 10 229; chmod 666 fuse
            mount --make-rprivate /; mount --bind fuse /dev/fuse
            mount -t tmpfs none tmp; mkdir tmp/upper tmp/work; chown 1000:1000 tmp/*
            case {who:?} in
            User|OnTmpfs) {user} bash -e inner ;;
            Bare) python3 filtered bare {user} bash -e inner ;;
            Root)
                mkfifo -m 666 live
                {user} unshare --user bash -c 'echo > live; exec sleep 100' & holder=$!
                read < live; rm live
                for kind in uid gid; do
                    env printf '0 1000 1\n1 100000 65535\n' > /proc/$holder/${{kind}}_map; done
                nsenter --user --target $holder -S 0 -G 0 unshare --mount bash -e inner || bad=1
                kill $holder; exit $bad ;;
            esac",
            base = stand.path("").display(),
        );
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "bash", "-e", "-c", &outer]).output().unwrap()
    }

    fn seen(&self, name: &str) -> String {
        fs::read_to_string(self.0.path(name)).unwrap()
    }

    /// Runs sections of the program in both directories, and in both again after a remount.
    fn alike(&self, who: Who, sections: &str) {
        let before = fingerprint(&self.0.path("lower"));
        let script =
            format!("mounted; both out {sections}; unmounted; mounted; both again; unmounted");
        assert_ok(&self.run(who, &script));
        for name in ["out", "again"] {
            let mounted = self.seen(&format!("mnt.{name}"));
            assert_alike(&mounted, &self.seen(&format!("plain.{name}")));
            assert!(!mounted.is_empty());
        }
        assert_eq!(
            before,
            fingerprint(&self.0.path("lower")),
            "line 29: a lower layer was changed"
        );
        if who != Who::OnTmpfs {
            let left = names(&self.0.path("work/work"));
            let left =
                left.iter().filter(|name| !name.starts_with("#whiteout-")).collect::<Vec<_>>();
            let expected = if who == Who::Bare { vec!["incompat"] } else { vec![] };
            assert_eq!(left, expected, "left in work");
        }
    }

    /// How many objects have their marks beside them.
    fn records(&self) -> usize {
        names(&self.0.path("work/plyfs/marks")).len()
    }

    fn attribute(&self, path: &str, name: &str) -> String {
        run("getfattr", &[&"--only-values", &"-h", &"-n", &name, &self.0.path(path)])
    }
}

/// What `programs/rootless.py` works on.
const TREE: &str = "mkdir -p d/sub/deep e full d2 closed shut unsearchable sealed
    echo F > d/f; echo G > d/g; echo X > d/sub/deep/x; echo x > full/x; echo in > closed/in
    echo in > shut/in; echo one > one; echo two > two; ln two d2/alias; echo y > y
    ln -s t1 l1; ln -s t3 l3; ln -s ts s1; ln s1 s2; mkfifo p1 p2; ln p2 d2/p2; echo a > xa
    echo b > xb; head -c 200000 /dev/zero > big; echo work > worked-on; echo no > unreadable
    echo old > only-written; touch empty unsearchable/in; chmod 200 only-written
    echo in > sealed/in; echo content > locked; echo old > write-only; chmod 200 write-only
    chmod 0 unreadable unsearchable empty sealed locked; chmod 555 shut";

fn alone() -> Alone {
    Alone::new(TREE, include_str!("programs/rootless.py"))
}

fn in_each_way(sections: &str, check: impl Fn(&Alone)) {
    for who in [Who::User, Who::Root] {
        let alone = alone();
        alone.alike(who, sections);
        check(&alone);
    }
}

/// Kernel overlayfs, where marks are `user.*`: EXDEV.
#[test]
fn line_14_directories_rename_without_privileges() {
    in_each_way("moved", |alone| {
        assert!(alone.seen("mnt.out").starts_with("rename: None\nagain: None\n"));
        assert_eq!(alone.attribute("upper/moved", "user.overlay.redirect"), "/d");
    });
}

#[test]
fn line_20_what_looks_like_a_mark_is_kept_without_privileges() {
    // Two that were lower ones, two that are new.
    in_each_way("marks", |alone| assert_eq!(alone.records(), 4));
}

#[test]
fn line_21_to_23_links_stay_one_without_privileges() {
    in_each_way("links", |alone| {
        assert_eq!(names(&alone.0.path("work/index")).len(), 3);
        assert_eq!(alone.records(), 2, "those of the link and of the fifo");
    });
}

#[test]
fn line_24_inode_numbers_survive_copy_up_and_remount_without_privileges() {
    in_each_way("moved marks links metadata", |alone| {
        let seen = alone.seen("mnt.again");
        assert_eq!(seen.matches("[True]").count(), 9, "{seen}");
        assert!(seen.contains("s1 [True, True]") && !seen.contains("False]"), "{seen}");
    });
}

#[test]
fn line_43_a_change_of_metadata_copies_no_data_without_privileges() {
    in_each_way("metadata", |alone| {
        let copy = fs::metadata(alone.0.path("upper/big")).unwrap();
        assert!(copy.size() == 200_000 && copy.blocks() <= 8, "{copy:?}");
        assert_eq!(alone.attribute("upper/big", "user.overlay.metacopy"), "");
    });
}

/// A server without privileges is shut out as well, and must do all the same what the owner may.
#[test]
fn bits_that_shut_the_owner_out() {
    in_each_way("bits", |_| {});
}

#[test]
fn all_of_it_on_a_filesystem_without_attributes() {
    // An attribute that could not be kept is not dropped.
    let other = Alone::new("touch f; setfattr -n user.low -v low f", "");
    let said = other.run(Who::Bare, "mounted; ! chmod 600 mnt/f 2>&1; rm mnt/f; unmounted");
    assert_ok(&said);
    assert!(String::from_utf8_lossy(&said.stdout).contains("Operation not supported"), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stderr).contains("no extended attributes"), "{said:?}");
    let alone = alone();
    alone.alike(Who::Bare, "moved marks links metadata bits");
    let upper = alone.0.path("upper");
    let found = run("getfattr", &[&"-R", &"-h", &"-d", &"-m", &"-", &upper]);
    assert_eq!(found, "", "attributes were written");
}

#[test]
fn all_of_it_on_tmpfs() {
    let alone = alone();
    let script = "mounted; both out moved marks links metadata bits
        unmounted; mounted; both again; unmounted";
    assert_ok(&alone.run(Who::OnTmpfs, script));
    for name in ["out", "again"] {
        let mounted = alone.seen(&format!("mnt.{name}"));
        assert_alike(&mounted, &alone.seen(&format!("plain.{name}")));
    }
}

/// Whom permission bits do not bind, as the root of a user namespace, does with lower objects what
/// their owner does with them in a plain directory.
#[test]
fn what_the_owner_shut_himself_out_of_below() {
    self::alone().alike(Who::Root, "unreadable");
    // Who is bound by them changes modes, names and what is truncated. The data stay out of reach,
    // and stay.
    let alone = alone();
    let script = "mounted; cd mnt; chmod 600 locked write-only; chmod 700 sealed
        for f in locked write-only sealed/in; do cat $f 2>&1 && exit 1; done
        { echo more >> write-only; } 2>&1 && exit 1
        mv locked unlocked 2>&1 && exit 1
        echo new > write-only; cat write-only
        stat -c '%a %s' locked write-only sealed; rm locked; cd ..; unmounted";
    let said = alone.run(Who::User, script);
    assert_ok(&said);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.matches("Permission denied").count(), 5, "{said}");
    assert!(said.ends_with("new\n600 8\n600 4\n700 4096\n"), "{said}");
    assert_eq!(fs::read_to_string(alone.0.path("lower/locked")).unwrap(), "content\n");
}

#[test]
fn an_unprivileged_mount_is_a_plain_directory_too() {
    for (setup, text) in PROGRAMS {
        let alone = Alone::new(setup, text);
        assert_ok(&alone.run(Who::User, "mounted; both out; unmounted"));
        assert_alike(&alone.seen("mnt.out"), &alone.seen("plain.out"));
        assert!(!alone.seen("mnt.out").is_empty());
        alone.0.assert_work_is_clean();
    }
}

/// Who cannot see `trusted.*` attributes would see what was deleted, and metadata without data.
#[test]
fn line_19_what_root_wrote_is_refused_where_its_marks_cannot_be_seen() {
    let mut stand = Stand::new(|lower| fs::write(lower.join("gone"), "gone").unwrap());
    fs::remove_file(stand.at("gone")).unwrap();
    stand.umount();
    let mount = format!(
        "'{}' mount -o '{}' '{}'",
        env!("CARGO_BIN_EXE_plyfs"),
        stand.options(),
        stand.path("mnt").display()
    );
    let arguments = ["--user", "--map-root-user", "--mount", "sh", "-c", &mount];
    let refused = Command::new("unshare").args(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("mount it as root"), "{told}");
    stand.mount();
    assert!(!stand.at("gone").exists());
}

#[test]
fn who_asked_for_it_is_unmounted_though_the_server_of_a_user_is_killed() {
    let alone = alone();
    let script = "mounted ,auto_unmount; [ -e mnt/one ]; grep -q $PWD/mnt /proc/mounts
        for line in $(grep --files-with-matches $PWD/upper.*,auto_unmoun[t] /proc/[0-9]*/cmdline)
        do pid=${line//[^0-9]/}; [ $(ls /proc/$pid/task 2>&1 | wc -l) = 1 ] || kill -KILL $pid; done
        for n in {1..100}; do grep -q $PWD/mnt /proc/mounts || break; sleep 0.1; done
        [ $n -lt 100 ]; mounted; unmounted";
    assert_ok(&alone.run(Who::User, script));
}
