//! The attribute's value in all its forms.

use super::*;
use crate::attr::Time;

fn attr(kind: Kind) -> Attr {
    let time = Time::default();
    Attr {
        ino: 1,
        kind,
        perm: 0o600,
        nlink: 1,
        uid: 1000,
        gid: 1000,
        rdev: 0,
        size: 9,
        blocks: 8,
        blksize: 4096,
        atime: time,
        mtime: time,
        ctime: time,
    }
}

#[test]
fn every_type_comes_back() {
    for (what, text) in [
        (Some((Kind::File, 0)), "0:5:4755:file"),
        (Some((Kind::Dir, 0)), "0:5:4755:dir"),
        (Some((Kind::Symlink, 0)), "0:5:4755:symlink"),
        (Some((Kind::Fifo, 0)), "0:5:4755:pipe"),
        (Some((Kind::Socket, 0)), "0:5:4755:socket"),
        (Some((Kind::Block, rustix::fs::makedev(8, 0))), "0:5:4755:block-8-0"),
        (Some((Kind::Char, rustix::fs::makedev(4095, 77_777))), "0:5:4755:char-4095-77777"),
        (None, "0:5:4755"),
    ] {
        let value = Override { uid: 0, gid: 5, perm: 0o4755, what };
        assert_eq!(value.format(), text);
        assert_eq!(Override::parse(text.as_bytes()), Some(value), "{text}");
    }
}

#[test]
fn what_others_write_is_read() {
    let parsed = |text: &str| Override::parse(text.as_bytes());
    assert_eq!(parsed("1:2:0100644:file"), parsed("1:2:644:file"), "with the type's bits");
    assert_eq!(parsed("1:2:600:block8:1"), parsed("1:2:600:block-8-1"));
    assert_eq!(parsed("1:2:600:file-of-tomorrow"), parsed("1:2:600:file"));
    assert_eq!(parsed("4294967294:2:600").unwrap().uid, u32::MAX - 1);
    for wrong in [
        "",
        "1",
        "1:2",
        "1:2:",
        "x:2:600",
        "-1:2:600",
        "1:2:9",
        "1:2:600:",
        "1:2:600:door",
        "1:2:600:block",
        "1:2:600:char-1",
        "1:2:600:char-x-1",
        "4294967296:1:600",
    ] {
        assert_eq!(parsed(wrong), None, "{wrong}");
    }
    assert_eq!(Override::parse(b"\xff:1:2"), None);
}

#[test]
fn a_file_stands_for_anything_but_a_directory() {
    let stood = |real: Kind, text: &str| {
        let mut attr = attr(real);
        Override::parse(text.as_bytes()).unwrap().apply(&mut attr);
        (attr.kind, attr.rdev, attr.size, attr.perm)
    };
    assert_eq!(stood(Kind::File, "0:0:644:pipe"), (Kind::Fifo, 0, 0, 0o644));
    assert_eq!(stood(Kind::File, "0:0:777:symlink"), (Kind::Symlink, 0, 9, 0o777));
    assert_eq!(stood(Kind::File, "0:0:644:dir"), (Kind::File, 0, 9, 0o644));
    assert_eq!(stood(Kind::Dir, "0:0:755:pipe"), (Kind::Dir, 0, 9, 0o755));
    let null = rustix::fs::makedev(1, 3);
    assert_eq!(stood(Kind::File, "0:0:666:char-1-3"), (Kind::Char, null, 0, 0o666));
}

#[test]
fn names_that_a_user_may_not_write_are_sheltered() {
    let there_and_back = |form: Form, name: &[u8], stored: &[u8]| {
        assert_eq!(form.stored(name).unwrap(), stored);
        assert_eq!(form.shown(stored).unwrap(), name);
    };
    there_and_back(Form::Containers, b"user.x", b"user.x");
    let capability = b"security.capability";
    let sheltered = b"user.containers.override_security.capability";
    there_and_back(Form::Containers, capability, sheltered);
    there_and_back(Form::Privileged, capability, capability);
    let own = Form::Containers.name();
    let twice = b"user.containers.override_user.containers.override_stat";
    there_and_back(Form::Containers, own, twice);
    for form in Form::ALL {
        assert_eq!(form.shown(form.name()), None);
        assert_eq!(form.stored(b"system.posix_acl_access"), None);
        assert_eq!(form.shown(b"system.posix_acl_default"), None);
    }
    assert_eq!(Form::Containers.shown(b"security.selinux"), None, "of the filesystem below");
}
