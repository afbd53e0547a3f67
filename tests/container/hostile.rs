//! Images whose files lead elsewhere: nothing outside of the root is read, made or mounted on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use plyfs::container::{self, Bind};

use crate::stand::{self, Stand};

/// Everything that is in a directory of the host, as text.
fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            format!("{} {}", entry.file_name().display(), entry.metadata().unwrap().len())
        })
        .collect();
    names.sort();
    names
}

#[test]
fn links_out_of_the_root_stay_inside() {
    let stand = Stand::new();
    let outside = stand.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("passwd"), "ann:x:666:666::/:/bin/sh\n").unwrap();
    fs::write(outside.join("resolv.conf"), "outside\n").unwrap();
    let (before, mounts) = (listing(&outside), stand.mounts());
    fs::remove_dir_all(stand.root().join("etc")).unwrap();
    for target in [outside.to_str().unwrap(), "../../../../../../../../tmp", "/proc/self/root/tmp"]
    {
        symlink(target, stand.root().join("etc")).unwrap();
        let mut spec = stand.script("cat /etc/passwd /mnt/x 2>/dev/null; touch /mnt/y; true");
        spec.user = Some("ann".to_owned());
        let error = container::run(&spec).unwrap_err().to_string();
        assert_eq!(error, "user 'ann': no such user in the image's /etc/passwd", "{target}");
        spec.user = None;
        spec.resolv_conf = true;
        spec.cwd = "/etc/work".into();
        spec.binds = vec![Bind {
            host: stand.dir().join("root/bin"),
            container: "/etc/bound".into(),
            read_only: false,
        }];
        assert_eq!(stand::code(&spec), 0, "{target}");
        fs::remove_file(stand.root().join("etc")).unwrap();
    }
    assert_eq!(listing(&outside), before);
    assert_eq!(stand.mounts(), mounts);
    assert!(!Path::new("/tmp/work").exists() && !Path::new("/tmp/bound").exists());
    // They were followed as the container itself would follow them.
    let inside = outside.strip_prefix("/").unwrap();
    assert!(stand.root().join(inside).join("work").is_dir());
    assert!(stand.root().join("tmp/work").is_dir());
    assert!(stand.root().join("proc/self/root/tmp/resolv.conf").is_file());
}

#[test]
fn links_where_pseudo_filesystems_belong_are_refused() {
    for (name, target) in [("proc", "../../.."), ("sys", "/tmp"), ("dev", "/"), ("dev", "nothing")]
    {
        let stand = Stand::new();
        let (before, mounts) = (listing(Path::new("/dev")), stand.mounts());
        symlink(target, stand.root().join(name)).unwrap();
        let error = container::run(&stand.script("true")).unwrap_err().to_string();
        let why = "is a symbolic link in the image, where a directory has to be";
        assert_eq!(error, format!("/{name}: {why}"));
        assert_eq!(stand.mounts(), mounts);
        assert_eq!(listing(Path::new("/dev")).len(), before.len());
    }
    let stand = Stand::new();
    fs::write(stand.root().join("proc"), "").unwrap();
    let error = container::run(&stand.script("true")).unwrap_err().to_string();
    assert_eq!(error, "/proc: Not a directory");
}

#[test]
fn odd_files_where_users_are_looked_up_are_refused() {
    let stand = Stand::new();
    let passwd = stand.root().join("etc/passwd");
    let mut spec = stand.script("true");
    spec.user = Some("ann".to_owned());
    let refused = |why: &str| {
        let error = container::run(&spec).unwrap_err().to_string();
        assert_eq!(error, format!("user 'ann': {why}"));
        fs::remove_file(&passwd).unwrap();
    };
    fs::remove_file(&passwd).unwrap();
    // Opening a FIFO would wait for ever.
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    refused("/etc/passwd: not a regular file");
    symlink("passwd", &passwd).unwrap();
    refused("/etc/passwd: Too many levels of symbolic links");
    symlink("/dev/zero", &passwd).unwrap();
    refused("no such user in the image's /etc/passwd");
    fs::File::create(&passwd).unwrap().set_len(1 << 30).unwrap();
    refused("/etc/passwd: larger than 16777216 bytes");
    // A link to the host's, as the container would see it.
    symlink("/etc/real", &passwd).unwrap();
    fs::write(stand.root().join("etc/real"), "ann:x:5:5::/:\n").unwrap();
    let (_, said) = stand.output_with("id -u", |spec| spec.user = Some("ann".to_owned()));
    assert_eq!(said, "5\n");
}

#[test]
fn binds_to_the_root_itself_are_refused() {
    let stand = Stand::new();
    let mounts = stand.mounts();
    symlink("../../..", stand.root().join("up")).unwrap();
    let mut spec = stand.script("true");
    for place in ["/", "/up", "/proc/x", "/tmp/../sys", "/.."] {
        spec.binds = vec![Bind { host: "/tmp".into(), container: place.into(), read_only: false }];
        let error = container::run(&spec).unwrap_err();
        assert_eq!(error.errno(), plyfs::errno::Errno::EINVAL, "{place}: {error}");
    }
    assert_eq!(stand.mounts(), mounts);
}

#[test]
fn the_hosts_root_is_no_containers_root() {
    let stand = Stand::new();
    for root in ["/", "/proc/self/root", "/nowhere"] {
        let mut spec = stand.script("true");
        spec.root = root.into();
        container::run(&spec).unwrap_err();
    }
}

#[test]
fn nonsense_is_refused_before_anything_is_done() {
    let stand = Stand::new();
    let refused = |change: &dyn Fn(&mut container::Spec)| {
        let mut spec = stand.script("true");
        change(&mut spec);
        let error = container::run(&spec).unwrap_err();
        assert_eq!(error.errno(), plyfs::errno::Errno::EINVAL, "{error}");
    };
    refused(&|spec| spec.args.clear());
    refused(&|spec| spec.args = vec!["".into()]);
    refused(&|spec| spec.args.push("a\0b".into()));
    refused(&|spec| spec.env.push("a=\0b".into()));
    refused(&|spec| spec.hostname.clear());
    refused(&|spec| spec.hostname = "x".repeat(65));
    assert!(!stand.root().join("proc").exists());
}
