//! Other programs' command lines.

use super::*;

fn rewritten(line: &str) -> String {
    let words = rewrite(line.split(' ').map(OsString::from).collect());
    let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
    words.join(" ")
}

#[test]
fn each_name_has_its_order() {
    for (line, expected) in [
        ("plyfs mount -o x m", "plyfs mount -o x m"),
        ("/sbin/mount.plyfs none /m -n -o rw,x -v", "plyfs mount -o fsname=none /m -o rw,x"),
        ("mount.fuse.plyfs plyfs /m -o x -t fuse.plyfs", "plyfs mount -o fsname=plyfs /m -o x"),
        ("mount.plyfs none /m -f", "plyfs mount -o fsname=none /m -f"),
        ("plyfs a,b /m -o x,dev,suid", r"plyfs mount -o fsname=a\,b /m -o x,dev,suid"),
        ("/bin/plyfs src /m -ox", "plyfs mount -o fsname=src /m -ox"),
        ("/opt/plyfs -o lowerdir=a, /m", "/opt/plyfs mount -o lowerdir=a, /m"),
        ("plyfs -olowerdir=a /m", "plyfs mount -olowerdir=a /m"),
        ("plyfs create image name", "plyfs create image name"),
        ("plyfs umount /m -o", "plyfs umount /m -o"),
        ("/usr/bin/fuse-overlayfs -o x /m", "/usr/bin/fuse-overlayfs mount -o x /m"),
        ("fuse-overlayfs -ox /m", "fuse-overlayfs mount -ox /m"),
        ("fuse-overlayfs -V", "fuse-overlayfs -V"),
        ("fuse-overlayfs --version", "fuse-overlayfs --version"),
    ] {
        assert_eq!(rewritten(line), expected);
    }
}
