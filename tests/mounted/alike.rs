//! Programs that run in the mount and in a plain directory with the same content, on the
//! filesystem that the layers are on: what they see must be the same. They are in `programs/`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::stand::{Stand, assert_ok, fingerprint};

/// Fills a directory by a shell script.
pub(crate) fn fill(dir: &Path, script: &str) {
    let mut shell = Command::new("bash");
    shell.args(["-e", "-c", script]).current_dir(dir);
    assert_ok(&shell.output().unwrap());
}

/// Runs one of the programs in `dir`; it must end well. Returns what it printed.
pub(crate) fn program(dir: &Path, text: &str) -> String {
    program_with(dir, text, &[])
}

/// As [`program`], with arguments.
pub(crate) fn program_with(dir: &Path, text: &str, arguments: &[&str]) -> String {
    let text = concat!(include_str!("programs/prelude.py"), "\n").to_owned() + text;
    let mut python = Command::new("timeout");
    python.args(["120", "python3", "-c", &text]).args(arguments).current_dir(dir);
    let output = python.output().unwrap();
    assert_ok(&output);
    String::from_utf8(output.stdout).unwrap()
}

/// The first line in which the two differ is the message.
pub(crate) fn assert_alike(mounted: &str, plain: &str) {
    for (number, (mounted, plain)) in mounted.lines().zip(plain.lines()).enumerate() {
        assert_eq!(mounted, plain, "line {}: mounted, and in a plain directory", number + 1);
    }
    assert_eq!(mounted.len(), plain.len(), "one of them prints more");
}

/// Runs the program in a mount over one layer that `setup` fills, and in a plain directory.
pub(crate) fn alike(setup: &str, text: &str) -> String {
    let mut stand = Stand::unmounted(&["lower"]);
    fs::create_dir(stand.path("plain")).unwrap();
    for dir in ["lower", "plain"] {
        fill(&stand.path(dir), setup);
        // Unprivileged users take part.
        fs::set_permissions(stand.path(dir), fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::set_permissions(stand.path("upper"), fs::Permissions::from_mode(0o777)).unwrap();
    let before = fingerprint(&stand.path("lower"));
    stand.mount();
    let mounted = program(&stand.path("mnt"), text);
    assert_alike(&mounted, &program(&stand.path("plain"), text));
    stand.umount();
    stand.assert_work_is_clean();
    assert_eq!(before, fingerprint(&stand.path("lower")), "line 29: a lower layer was changed");
    mounted
}

#[test]
fn line_26_locks_of_every_kind_hold_over_a_copy_up() {
    let setup = "for f in one waited a e; do echo 0123456789 > $f; done; ln a b; ln e f";
    let seen = alike(setup, include_str!("programs/locks.py"));
    assert_eq!(seen.matches("EAGAIN").count(), 10, "{seen}");
    assert!(seen.contains("woken 7"), "{seen}");
}

#[test]
fn line_26_inotify_tells_what_it_tells_of_a_plain_directory() {
    let setup = "mkdir d; for f in f t b; do echo 0123456789 > $f; done; ln b d/c";
    let seen = alike(setup, include_str!("programs/watches.py"));
    assert!(seen.contains("['b', 'd/c'] 0x2 False"), "{seen}");
}

/// Kernel overlayfs goes on showing the lower file's pages.
#[test]
fn line_28_mappings_and_readers_see_every_kind_of_later_change() {
    let setup = "for f in 0 1 2 3 4 5 6 7 8 9 cut emptied private; do
        head -c 16384 /dev/zero | tr '\\0' x > $f; done; ln 8 link; echo SOURCE > source";
    let seen = alike(setup, include_str!("programs/mapped.py"));
    assert!(seen.contains("[b'xxxxxx', b'SOURCE', b'xxxxxx', b'xxxxxx']"), "{seen}");
}

/// fuse-overlayfs 2.0: it does not move.
#[test]
fn line_28_a_write_through_a_mapping_moves_mtime() {
    let setup = "for f in lower copied; do head -c 16384 /dev/zero > $f; done";
    let seen = alike(setup, include_str!("programs/mapped_time.py"));
    assert_eq!(seen.matches("True").count(), 6, "{seen}");
}

#[test]
fn line_31_a_file_without_a_name_can_get_one() {
    let setup = "mkdir -p lower/deep team; echo f > lower/file; chgrp 500 team; chmod 2777 team
        setfacl -m d:u::rwx,d:u:77:rwx,d:g::r-x,d:o::r-x team";
    let seen = alike(setup, include_str!("programs/nameless.py"));
    assert!(seen.contains("over a removed name: 0"), "{seen}");
}

#[test]
fn line_31_appenders_in_several_processes_lose_nothing_over_a_copy_up() {
    let seen = alike("echo first > f", include_str!("programs/appenders.py"));
    assert!(seen.contains("400 True"), "{seen}");
}

#[test]
fn line_34_sendfile_splice_and_copies_do_what_they_do_elsewhere() {
    let setup = "seq 400000 > big; head -c 300 /dev/zero | tr '\\0' l > lower";
    alike(setup, include_str!("programs/copies.py"));
}

/// fuse-overlayfs 2.0: ENOENT. Kernel overlayfs counts a link of a removed directory.
#[test]
fn line_35_what_is_unlinked_or_replaced_goes_on_working() {
    let setup = "mkdir lower merged; touch lower/a merged/a
        for n in 0 2; do for f in f over alias withover; do printf 0123456789 > $f$n; done
        ln alias$n other$n; done";
    let seen = alike(setup, include_str!("programs/unlinked.py"));
    assert!(seen.matches("opened again 5").count() == 8, "{seen}");
}

#[test]
fn line_37_what_runs_is_not_written_and_what_is_written_does_not_run() {
    let seen = alike("cp /bin/sleep sleeper", include_str!("programs/busy.py"));
    assert!(seen.contains("run while it is written: ETXTBSY"), "{seen}");
}

/// What the set-up of the next test makes: a file for each kind of change.
const RIGHTS: &str = "for kind in own open; do
    for c in append truncate same empty open nothing fallocate range chmod group owner away \\
        foreign xattr times link rename; do
        echo content > $kind-$c; done; done
    chown 1000:1000 own-*
    for f in own-* open-*; do setcap cap_net_raw+ep $f; done
    chmod 6777 own-* open-*
    echo source > source; chown 1000:1000 source
    echo x > team-file; mkdir team-dir; chown 1000:500 team-file team-dir
    mkdir setgid team-setgid; chgrp 500 setgid team-setgid; chmod 2777 setgid
    chown 1000 team-setgid; chmod 2755 team-setgid
    mkdir sticky own-sticky; chown 1000 own-sticky
    for d in sticky own-sticky; do chmod 1777 $d
        for n in roots others own; do echo $n > $d/$n; mkdir $d/$n-dir; done
        chown 1000 $d/own*; chown 1001 $d/others*; done";

/// Also line 40: setgid directories and sticky ones.
#[test]
fn line_41_an_unprivileged_process_leaves_no_set_id_and_no_capability_behind() {
    let seen = alike(RIGHTS, include_str!("programs/rights.py"));
    assert!(seen.contains("('0o100777', 1000, 1000, False, 9)"), "{seen}");
}

#[test]
fn line_44_sizes_names_and_errors_of_attributes_are_those_of_the_filesystem_below() {
    let setup = "touch f; mkdir d; ln -s f link; mkfifo fifo
        for x in f d; do setfattr -n user.low -v low $x; done";
    alike(setup, include_str!("programs/attributes.py"));
}

#[test]
fn line_45_symlinks_of_every_kind_are_never_followed_by_the_server() {
    let setup = "ln -s /etc/passwd absolute; ln -s nowhere dangling; ln -s loop loop
        ln -s ../../.. up";
    alike(setup, include_str!("programs/links.py"));
}

#[test]
fn line_47_positions_in_a_listing_stay_good_while_entries_come_and_go() {
    let setup = "mkdir d; i=0; while [ $i -lt 400 ]; do : > d/file-number-$i; i=$((i + 1)); done";
    let seen = alike(setup, include_str!("programs/positions.py"));
    assert!(seen.contains("repeated 0 set()\nskipped set()"), "{seen}");
}

#[test]
fn line_48_paths_to_the_last_byte() {
    let setup = "mkdir low; cd low; n=$(printf 'e%.0s' $(seq 240))
        for i in $(seq 20); do mkdir $n; cd $n; done; echo low > deepest";
    let mut stand = Stand::unmounted(&["lower"]);
    fs::create_dir(stand.path("plain")).unwrap();
    fill(&stand.path("lower"), setup);
    fill(&stand.path("plain"), setup);
    stand.mount();
    let text = include_str!("programs/paths.py");
    let plain = program(&stand.path("plain"), text);
    assert_alike(&program(&stand.path("mnt"), text), &plain);
    // Too deep for who removes the directory by paths.
    fill(&stand.path("lower"), "rm -r low");
}
