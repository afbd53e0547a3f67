//! Names, told apart.

use super::{Inner, Said, inner, whiteout};
use crate::errno::Errno;
use crate::name::Name;

fn name(bytes: &[u8]) -> Name<'_> {
    Name::new(bytes).unwrap()
}

#[test]
fn names_are_told_apart() {
    // The longest name can be whited out, too.
    let long = [b".wh.".as_slice(), &[b'x'; 255]].concat();
    let cases: [(&[u8], Said<'_>); 10] = [
        (b"a", Said::Plain(name(b"a"))),
        (b".wh", Said::Plain(name(b".wh"))),
        (b"a.wh.b", Said::Plain(name(b"a.wh.b"))),
        (b".wh.a", Said::Whiteout(name(b"a"))),
        (b".wh..a", Said::Whiteout(name(b".a"))),
        (b".wh.\xff", Said::Whiteout(name(b"\xff"))),
        (&long, Said::Whiteout(name(&[b'x'; 255]))),
        (b".wh..wh..opq", Said::Opaque),
        (b".wh..wh.plnk", Said::Ignored),
        (b".wh..wh.", Said::Ignored),
    ];
    for (bytes, said) in cases {
        assert_eq!(whiteout(bytes).unwrap(), said, "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_says_nothing_is_refused() {
    let longer = [b".wh.".as_slice(), &[b'x'; 256]].concat();
    let cases: [(&[u8], Errno); 7] = [
        (b"", Errno::EINVAL),
        (b"..", Errno::EINVAL),
        (b".wh.", Errno::EINVAL),
        (b".wh..", Errno::EINVAL),
        (b".wh...", Errno::EINVAL),
        (&[b'x'; 256], Errno::ENAMETOOLONG),
        (&longer, Errno::ENAMETOOLONG),
    ];
    for (bytes, errno) in cases {
        assert_eq!(whiteout(bytes).unwrap_err().errno(), errno, "{}", bytes.escape_ascii());
    }
}

#[test]
fn nothing_lies_in_a_whiteout() {
    assert_eq!(inner(b"a").unwrap(), Inner::Plain);
    assert_eq!(inner(b".wh..wh.plnk").unwrap(), Inner::Ignored);
    for bytes in [b".wh.a".as_slice(), b".wh..wh..opq", b".wh."] {
        assert_eq!(inner(bytes).unwrap_err().errno(), Errno::EINVAL);
    }
}
