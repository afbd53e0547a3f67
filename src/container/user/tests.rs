use super::{Identity, lookup};

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
    # a comment: of nobody's:::\n\
    ann:x:1000:100:Ann:/home/ann:/bin/sh\n\
    ann:x:2000:200::/second:/bin/sh\n\
    homeless:x:1001:1001:::\n\
    short:x:1002:1002\n\
    broken:x:many:1:::\n\
    \n\
    minus:x:-1:0:::\n\
    10:x:77:77::/ten:\n\
    caf\xe9:x:1003:1003::/caf\xe9:\n";
const GROUP: &[u8] = b"root:x:0:ann\nusers:x:100:\naudio:x:29:bob,ann\nvideo:x:44:annabel\n\
    broken:x:x:ann\nempty:x:50\n";

fn found(user: &str) -> (u32, u32, Vec<u32>, String) {
    let Identity { uid, gid, groups, home } = lookup(user, PASSWD, GROUP).unwrap();
    (uid, gid, groups, String::from_utf8_lossy(&home).into_owned())
}

#[test]
fn users_are_found_as_docker_finds_them() {
    for (user, uid, gid, groups, home) in [
        ("", 0, 0, vec![0], "/root"),
        ("root", 0, 0, vec![0], "/root"),
        ("0", 0, 0, vec![0], "/root"),
        ("ann", 1000, 100, vec![100, 0, 29], "/home/ann"),
        ("1000", 1000, 100, vec![100, 0, 29], "/home/ann"),
        ("ann:", 1000, 100, vec![100, 0, 29], "/home/ann"),
        ("ann:audio", 1000, 29, vec![29], "/home/ann"),
        ("ann:4242", 1000, 4242, vec![4242], "/home/ann"),
        (":audio", 0, 29, vec![29], "/root"),
        ("4711", 4711, 0, vec![0], "/"),
        ("4711:video", 4711, 44, vec![44], "/"),
        ("4711:50", 4711, 50, vec![50], "/"),
        ("homeless", 1001, 1001, vec![1001], "/"),
        ("short", 1002, 1002, vec![1002], "/"),
        // A word of digits is an id, never a name.
        ("10", 10, 0, vec![0], "/"),
        ("77", 77, 77, vec![77], "/ten"),
        ("2147483647", 2_147_483_647, 0, vec![0], "/"),
    ] {
        assert_eq!(found(user), (uid, gid, groups, home.to_owned()), "{user}");
    }
}

#[test]
fn what_is_not_there_is_named() {
    for (user, why) in [
        ("nobody", "no such user in the image's /etc/passwd"),
        ("broken", "no such user in the image's /etc/passwd"),
        ("minus", "no such user in the image's /etc/passwd"),
        ("-1", "no such user in the image's /etc/passwd"),
        ("# a comment", "no such user in the image's /etc/passwd"),
        ("ann:nothing", "no such group in the image's /etc/group"),
        ("ann:broken", "no such group in the image's /etc/group"),
        ("2147483648", "2147483648 is no id: ids end at 2147483647"),
        ("0:4294967296", "4294967296 is no id: ids end at 2147483647"),
    ] {
        assert_eq!(lookup(user, PASSWD, GROUP).unwrap_err().to_string(), why, "{user}");
    }
}

#[test]
fn an_image_without_users_has_root() {
    let root = Identity { uid: 0, gid: 0, groups: vec![0], home: b"/".to_vec() };
    assert_eq!(lookup("", b"", b"").unwrap(), root);
    lookup("root", b"", b"").unwrap_err();
}
