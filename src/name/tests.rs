//! What may name an entry, and that a name comes back as it was.

use super::{NAME_MAX, Name};
use crate::errno::Errno;

#[test]
fn names_that_name_nothing_are_refused() {
    for bytes in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b"] {
        assert_eq!(Name::new(bytes).unwrap_err().errno(), Errno::EINVAL, "{bytes:?}");
    }
    let long = vec![b'n'; NAME_MAX + 1];
    assert_eq!(Name::new(&long).unwrap_err().errno(), Errno::ENAMETOOLONG);
}

#[test]
fn an_owned_name_is_the_name() {
    for len in 1..=NAME_MAX {
        let bytes = vec![0xff; len];
        let name = Name::new(&bytes).unwrap();
        let owned = name.to_buf();
        assert_eq!(owned.as_name(), name);
        assert_eq!(owned, owned.clone());
        assert_ne!(owned, Name::new(&vec![0xfe; len]).unwrap().to_buf());
    }
    assert_eq!(size_of::<Option<super::NameBuf>>(), 24);
}
