use super::{age, size};

#[test]
fn sizes_are_round() {
    for (bytes, text) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10 * 1024 - 1, "9.9 KiB"),
        (10 * 1024, "10 KiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 40, "5 TiB"),
    ] {
        assert_eq!(size(bytes), text);
    }
}

#[test]
fn ages_are_round() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let ago = |seconds: i64| age(i64::try_from(now.as_secs()).unwrap() - seconds);
    assert_eq!(ago(600), "10 minutes ago");
    assert_eq!(ago(3 * 86_400), "3 days ago");
    assert_eq!(ago(-50), "0 seconds ago");
}
