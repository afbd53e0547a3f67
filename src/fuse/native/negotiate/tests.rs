//! What is taken of what is offered.

use super::*;

fn offer(flags: u64, minor: u32) -> Offer {
    Offer { version: (7, minor), max_readahead: 131_072, flags }
}

#[test]
fn only_what_is_offered_is_taken() {
    let (agreed, out) = negotiate(&offer(!0, 45), 0).unwrap();
    assert_eq!(agreed.flags, WANTED.iter().fold(0, |all, (flag, _)| all | flag));
    assert_eq!(u64::from(out.flags) | u64::from(out.flags2) << 32, agreed.flags);
    assert_eq!((out.minor, out.max_pages, out.max_readahead), (45, 256, 131_072));
    let (agreed, _) = negotiate(&offer(!0, 36), init::AFTER_5_18).unwrap();
    assert_eq!((agreed.flags >> 34, agreed.minor), (0, 36));
    let (agreed, _) = negotiate(&offer(0, 99), 0).unwrap();
    assert_eq!(agreed, Agreed { minor: 45, flags: 0, max_write: MAX_WRITE });
    assert!(!agreed.layout().setxattr_ext);
}

#[test]
fn old_kernels_are_told_why() {
    let error = negotiate(&offer(!0, 35), 0).unwrap_err();
    assert!(error.to_string().contains("7.35"), "{error}");
}

/// A kernel with pages of 64 KiB would otherwise read ahead 16 MiB at a time, and take what comes
/// for the whole file.
#[test]
fn no_request_is_larger_than_its_buffers_whatever_the_page_size() {
    for (page_size, pages) in [(4096, 256), (16384, 64), (65536, 16), (1 << 21, 1)] {
        assert_eq!(max_pages(page_size), pages);
    }
}
