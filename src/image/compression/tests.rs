use super::*;
use proptest::prelude::*;

fn encode(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn decode(stream: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
    let (compression, mut decoder) = decoder(Box::new(Cursor::new(stream.to_vec()))).unwrap();
    let mut all = Vec::new();
    decoder.read_to_end(&mut all)?;
    Ok((compression, all))
}

/// Bytes that cannot be compressed.
fn noise(len: u32) -> Vec<u8> {
    (0..len).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect()
}

const BOTH: [Compression; 2] = [Compression::Gzip, Compression::Zstd];
const SKIPPABLE: &[u8] = b"\x5a\x2a\x4d\x18\x05\0\0\0skip!";

#[test]
fn streams_are_told_by_their_first_bytes() {
    let long = vec![7; 300_000];
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        for content in [&b"hello"[..], b"", &long] {
            let (found, back) = decode(&encode(compression, content)).unwrap();
            assert_eq!((found, back.as_slice()), (compression, content));
        }
    }
    // Too short to be anything.
    for short in [&b""[..], b"\x1f", b"\x28\xb5\x2f"] {
        assert_eq!(decode(short).unwrap(), (Compression::None, short.to_vec()));
    }
}

#[test]
fn members_and_frames_follow_one_another() {
    let long = vec![9; 200_000];
    for compression in BOTH {
        let parts = [&b"one "[..], b"", b"two ", &long, b"end"];
        let stream = parts.map(|part| encode(compression, part)).concat();
        assert_eq!(decode(&stream).unwrap().1, parts.concat());
    }
}

#[test]
fn skippable_frames_may_be_anywhere() {
    let frame = encode(Compression::Zstd, b"content");
    let stream = [SKIPPABLE, &frame, SKIPPABLE, SKIPPABLE, &frame, SKIPPABLE].concat();
    assert_eq!(decode(&stream).unwrap(), (Compression::Zstd, b"contentcontent".to_vec()));
    assert_eq!(decode(SKIPPABLE).unwrap(), (Compression::Zstd, Vec::new()));
}

#[test]
fn what_ends_too_early_is_an_error_wherever_it_ends() {
    let noise = noise(2000);
    for compression in BOTH {
        let whole = encode(compression, &noise);
        for cut in 4..whole.len() {
            let error = decode(&whole[..cut]).expect_err("a stream that was cut");
            let text = error.to_string();
            assert_eq!(text, format!("{compression} data: ends too early"), "cut at {cut}");
        }
        // The second member is cut.
        let twice = [whole.as_slice(), &whole].concat();
        for cut in [1, 2, 3, 5, 20, whole.len() - 1] {
            decode(&twice[..whole.len() + cut]).expect_err("a second member that was cut");
        }
    }
    for cut in 4..SKIPPABLE.len() {
        decode(&SKIPPABLE[..cut]).expect_err("a skippable frame that was cut");
    }
}

#[test]
fn what_follows_and_is_nothing_is_an_error() {
    for compression in BOTH {
        for tail in [&b"\0"[..], b"\0\0\0\0\0\0\0\0\0\0\0\0", b"garbage that goes on"] {
            let stream = [encode(compression, b"content").as_slice(), tail].concat();
            let error = decode(&stream).expect_err("garbage");
            assert!(error.to_string().starts_with(&format!("{compression} data: ")), "{error}");
        }
    }
}

#[test]
fn damage_is_an_error() {
    let content = noise(5000);
    for compression in BOTH {
        let whole = encode(compression, &content);
        for at in [whole.len() / 3, whole.len() / 2, whole.len() - 2] {
            let mut broken = whole.clone();
            broken[at] ^= 0x10;
            decode(&broken).expect_err("a stream with a flipped bit");
        }
    }
}

#[test]
fn a_frame_that_wants_too_much_memory_is_refused() {
    // A frame header with a window of 2^31: exponent 21 over the least of 2^10.
    let frame = [&b"\x28\xb5\x2f\xfd\0"[..], &[21 << 3], &[1, 0, 0]].concat();
    let error = decode(&frame).expect_err("a window of 2 GiB");
    assert!(error.to_string().contains("memory"), "{error}");
    let fits = [&b"\x28\xb5\x2f\xfd\0"[..], &[17 << 3], &[1, 0, 0]].concat();
    assert_eq!(decode(&fits).unwrap().1, b"");
}

#[test]
fn nothing_of_the_time_or_the_machine_is_in_the_output() {
    let gzip = encode(Compression::Gzip, b"x");
    assert_eq!(gzip[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    let zstd = encode(Compression::Zstd, b"x");
    assert_eq!(zstd[4] & 4, 4, "the frame has a checksum");
}

#[test]
fn errors_of_what_is_read_keep_their_number() {
    struct Full;
    impl Read for Full {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::EDQUOT))
        }
    }
    for compression in BOTH {
        let start = Cursor::new(encode(compression, &[1; 100])[..12].to_vec());
        let (_, mut decoder) = decoder(Box::new(start.chain(Full))).unwrap();
        let error = decoder.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EDQUOT));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(
        magic in prop_oneof![
            Just(&b""[..]), Just(&b"\x1f\x8b\x08"[..]), Just(&b"\x28\xb5\x2f\xfd"[..]),
        ],
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let stream = [magic, &bytes].concat();
        if let Ok((Compression::None, back)) = decode(&stream) {
            prop_assert_eq!(back, stream);
        }
    }
}
