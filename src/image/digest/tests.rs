use std::io::{Read, Write};

use super::{ChainId, Digest, Hashing};

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn digests_are_text_and_back() {
    let digest: Digest = EMPTY.parse().unwrap();
    assert_eq!(digest, Digest::of(b""));
    assert_eq!(digest.to_string(), EMPTY);
    for bad in [
        "",
        "sha256:",
        "sha256:E3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "sha256:../../../../../../../../../../../../../../../../../../../../etc/passwd0",
    ] {
        assert!(bad.parse::<Digest>().is_err(), "{bad}");
    }
    let said = "sha512:00".parse::<Digest>().unwrap_err().to_string();
    assert!(said.contains("sha512"), "{said}");
}

/// The recurrence of the specification, computed by hand with sha256sum.
#[test]
fn a_chain_is_hashed_as_text() {
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let chains = ChainId::all(&[a, b]);
    assert_eq!(chains[0].0, a);
    assert_eq!(chains[1].0, Digest::of(format!("{a} {b}").as_bytes()));
    assert_eq!(chains[1], ChainId::base(a).over(b));
}

#[test]
fn what_passes_is_counted_and_digested() {
    let mut out = Hashing::new(Vec::new());
    out.write_all(b"some ").unwrap();
    out.write_all(b"bytes").unwrap();
    let (written, digest, count) = out.finish();
    assert_eq!((digest, count), (Digest::of(b"some bytes"), 10));
    let mut back = Hashing::new(written.as_slice());
    back.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(back.finish().1, digest);
}
