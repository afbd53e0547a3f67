//! A store that is not root's: a normal user's, by fusermount3, and that of root in a user
//! namespace with ids of its own; and layers that are unpacked where no device can be made.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::{PLYFS, Stand, images, stderr, stdout, text};

fn script(name: &str) -> String {
    format!("{}/tests/images/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a script where `plyfs` is the program and /dev/fuse is everybody's, in a mount namespace of
/// its own.
fn run(stand: &Stand, script: &str) -> Output {
    let dir = stand.0.path();
    // The tests' plyfs may lie where others cannot go.
    fs::hard_link(PLYFS, dir.join("plyfs"))
        .or_else(|_| fs::copy(PLYFS, dir.join("plyfs")).map(drop))
        .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir, mode).unwrap();
    let script = format!(
        "cd '{}'; mknod fuse c 10 229; chmod 666 fuse
        mount --make-rprivate /; mount --bind fuse /dev/fuse; PATH=$PWD:$PATH
        {script}",
        dir.display()
    );
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "bash", "-e", "-c", &script]).output().unwrap()
}

/// What a script prints that has to work.
#[track_caller]
fn said(stand: &Stand, script: &str) -> String {
    let output = run(stand, script);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// A copy of an image that everybody can read.
fn readable(stand: &Stand, image: &str) {
    let to = stand.0.path().join(image);
    for (program, arguments) in [
        ("cp", vec!["-r", text(&images().join(image)), text(&to)]),
        ("chmod", vec!["-R", "a+rX", text(&to)]),
    ] {
        assert!(Command::new(program).args(arguments).status().unwrap().success());
    }
}

#[test]
fn root_of_a_user_namespace_has_a_whole_store() {
    let stand = Stand::new();
    readable(&stand, "small");
    readable(&stand, "odd");
    let script = format!(
        r"mkdir own; chown 100000:100000 own
        cat >own/life <<'END'
        export PLYFS_ROOT=$PWD/own/store
        plyfs image import small --name small >own/log
        plyfs create small c
        mkdir own/mnt; plyfs mount c own/mnt
        stat --format='%u:%g' own/mnt/data/sub/3
        echo new >own/mnt/data/new; chown 5:6 own/mnt/data/new
        rm own/mnt/data/gone; mv own/mnt/data/replaced own/mnt/data/moved
        plyfs umount c
        plyfs diff c
        plyfs commit c small:2 >>own/log
        plyfs run small:2 -- /bin/sh -c 'ls; cat new; id -u; echo changed >new; cat new'
        plyfs run c -- /bin/cat new
        plyfs image export small:2 own/out.tar
        plyfs image import own/out.tar --name back | cut -d ' ' -f 5-
        plyfs check | sed 's/.*; //'
        plyfs image import odd 2>&1 || true
        plyfs image ls --json | wc -l; ls own/store/incoming | wc -l
        plyfs rm c; plyfs image rm small small:2 back >>own/log; ls own/store/trees | wc -l
END
        python3 '{}' 100000 bash -e own/life
        stat --format='%u' own/store/plyfs.db",
        script("user_namespace.py")
    );
    let said = said(&stand, &script);
    let lines: Vec<_> = said.lines().collect();
    let expected = [
        "c",
        "1000:1000",
        "D data/gone",
        "A data/new",
        "R data/replaced/ -> data/moved/",
        "moved",
        "new",
        "sub",
        "new",
        "0",
        "changed",
        "new",
        "4 layers, 0 of them new",
        "nothing found",
    ];
    for line in expected {
        assert!(lines.contains(&line), "{line}: {said}");
    }
    let refused = "'dir/big-ids': it belongs to 2000000000:2000000001, which this user namespace";
    assert!(said.contains(refused), "{said}");
    assert!(said.contains("podman unshare"), "{said}");
    assert!(said.ends_with("\n2\n0\nc\n0\n100000\n"), "{said}");
}

#[test]
fn a_normal_user_has_what_is_his_own_and_hears_of_what_is_not() {
    let stand = Stand::new();
    readable(&stand, "small");
    let script = r#"mkdir own; chown 1000:1000 own; PLYFS_ROOT=$PWD/own/store; export PLYFS_ROOT
        user() { setpriv --reuid=1000 --regid=1000 --clear-groups "$@"; }
        # An image of files that are all his.
        user bash -e <<'END'
        mkdir -p own/tree/dir own/above/dir; echo one >own/tree/dir/one; echo two >own/tree/dir/two
        echo three >own/above/dir/three; : >own/above/dir/.wh.one
        setfattr -n user.x -v y own/tree/dir/two
        umoci init --layout own/oci; umoci new --image own/oci:own
        for layer in tree above; do
            tar --create --xattrs --file=own/$layer.tar --directory=own/$layer .
            umoci raw add-layer --image own/oci:own own/$layer.tar
        done
END
        user plyfs image import own/oci --name own | cut -d ' ' -f 5-
        user plyfs create own c
        user mkdir own/mnt
        user plyfs mount c own/mnt
        user bash -ec 'cd own/mnt; ls dir; rm dir/two; echo new >dir/new
            mkdir sub; mv dir/three sub'
        user plyfs umount c
        user plyfs diff c
        user plyfs commit c own:2 >/dev/null
        user plyfs create own:2 d
        user plyfs mount d own/mnt; user find own/mnt -type f -printf '%P
' | sort; user plyfs umount d
        user plyfs check | sed 's/.*; //'
        user plyfs image import small 2>&1 || true
        user plyfs run own -- true 2>&1 || true
        user plyfs rm c d; user plyfs check | sed 's/.*; //'
        user plyfs image ls | wc -l; find own/store/incoming -mindepth 1 | wc -l"#;
    let said = said(&stand, script);
    let expected = "2 layers, 2 of them new\nc\nthree\ntwo\n";
    assert!(said.starts_with(expected), "{said}");
    for line in ["A dir/new", "D dir/three", "D dir/two", "A sub/", "A sub/three"] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    assert!(said.contains("\nd\ndir/new\nsub/three\nnothing found\n"), "{said}");
    let refused = "it belongs to 0:0, and this user may give nothing away";
    assert!(said.contains(refused) && said.contains("podman unshare"), "{said}");
    assert!(said.contains("plyfs: run: ") && said.contains("run as root"), "{said}");
    assert!(said.ends_with("\nc\nd\nnothing found\n3\n0\n"), "{said}");
}

#[test]
fn root_of_a_namespace_with_a_single_id_runs_commands_too() {
    let stand = Stand::new();
    let script = r#"mkdir own; chown 1000:1000 own; PLYFS_ROOT=$PWD/own/store; export PLYFS_ROOT
        user() { setpriv --reuid=1000 --regid=1000 --clear-groups "$@"; }
        user bash -e <<'END'
        mkdir -p own/tree/bin; cp "$(command -v busybox)" own/tree/bin/busybox
        umoci init --layout own/oci; umoci new --image own/oci:own
        tar --create --owner=0 --group=0 --file=own/tree.tar --directory=own/tree .
        umoci raw add-layer --image own/oci:own own/tree.tar
        as_root() { unshare --map-root-user "$@"; }
        as_root plyfs image import own/oci --name own | cut -d ' ' -f 5-
        as_root --mount plyfs run own -- /bin/busybox sh -c 'id -u; echo new >/new; cat /new
            tr -s " " </proc/self/uid_map; ls /dev/pts'
        as_root plyfs run own -- /bin/busybox true 2>&1 || true
        as_root --mount plyfs run --user 7 own -- /bin/busybox true 2>&1 || true
        as_root plyfs ls | wc -l; as_root plyfs check | sed 's/.*; //'
END"#;
    let said = said(&stand, script);
    assert!(said.starts_with("1 layers, 1 of them new\n0\nnew\n 0 1000 1\nptmx\n"), "{said}");
    assert!(said.contains("not permitted\nplyfs: this mount namespace is not yours"), "{said}");
    assert!(said.contains("user 7 or") && said.contains("not in this user"), "{said}");
    assert!(said.ends_with("\n1\nnothing found\n"), "{said}");
}

/// As in a sandbox: whiteouts are files with an attribute then, and mean the same.
#[test]
fn layers_without_devices_say_the_same() {
    let stand = Stand::with_small();
    let no_devices = script("no_devices.py");
    let refusing = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.current_dir(stand.0.path()).args([
            no_devices.as_str(),
            PLYFS,
            "--root",
            "sandboxed",
        ]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    };
    refusing(&["image", "import", text(&images().join("small")), "--name", "small"]);
    let whiteout = |store: &str| {
        let trees = fs::read_dir(stand.0.path().join(store).join("trees")).unwrap();
        let gone = trees.map(|tree| tree.unwrap().path().join("root/data/gone"));
        let found: Vec<_> = gone.filter_map(|path| fs::symlink_metadata(path).ok()).collect();
        found.iter().filter(|meta| meta.is_file() && meta.len() == 0).count()
    };
    assert_eq!((whiteout("sandboxed"), whiteout("store")), (1, 0));
    for (store, mnt) in [("sandboxed", "a"), ("store", "b")] {
        fs::create_dir(stand.0.path().join(mnt)).unwrap();
        stand.ok(&["--root", store, "create", "small", "c"]);
        stand.ok(&["--root", store, "mount", "c", mnt]);
    }
    let same = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/same_tree.py");
    let output = Command::new(same).current_dir(stand.0.path()).args(["a", "b"]).output().unwrap();
    assert!(output.status.success(), "{}", stdout(&output));
    for store in ["sandboxed", "store"] {
        stand.ok(&["--root", store, "umount", "c"]);
    }
    // Written, committed and read there, too.
    refusing(&["mount", "c", "a"]);
    fs::remove_file(stand.0.path().join("a/data/sub/3")).unwrap();
    refusing(&["umount", "c"]);
    assert_eq!(refusing(&["diff", "c"]), "D data/sub/3\n");
    refusing(&["commit", "c", "less"]);
    assert!(refusing(&["check"]).contains("nothing found"));
    let diff = |store: &str, image: &str| {
        let said = stand.ok(&["--root", store, "image", "inspect", image]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        said["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["diff_id"].clone())
            .collect::<Vec<_>>()
    };
    refusing(&["image", "export", "less", "less.tar"]);
    stand.ok(&["image", "import", "less.tar", "--name", "less"]);
    assert_eq!(diff("sandboxed", "less"), diff("store", "less"));
}
