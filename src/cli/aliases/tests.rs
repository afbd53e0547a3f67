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
        ("/sbin/mount.plyfs none /m -n -o rw,x -v", "plyfs mount /m -o rw,x"),
        ("mount.fuse.plyfs plyfs /m -o x -t fuse.plyfs", "plyfs mount /m -o x"),
        ("mount.plyfs none /m -f", "plyfs mount /m -f"),
        ("/usr/bin/fuse-overlayfs -o x /m", "/usr/bin/fuse-overlayfs mount -o x /m"),
        ("fuse-overlayfs --version", "fuse-overlayfs --version"),
    ] {
        assert_eq!(rewritten(line), expected);
    }
}
