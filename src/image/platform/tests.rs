use super::*;

fn parse(text: &str) -> Platform {
    text.parse().unwrap()
}

#[test]
fn spellings_are_brought_to_one() {
    for (text, shown) in [
        ("linux/amd64", "linux/amd64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("linux/powerpc64le", "linux/ppc64le"),
    ] {
        assert_eq!(parse(text).to_string(), shown);
        assert_eq!(parse(shown), parse(text));
    }
}

#[test]
fn what_is_no_platform_is_refused() {
    for text in
        ["", "linux", "linux/", "/amd64", "linux/amd64/", "a/b/c/d", "linux/a b", "a/\u{e9}"]
    {
        let error = text.parse::<Platform>().unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL, "{text}");
        assert!(error.to_string().contains("no platform"), "{error}");
    }
}

#[test]
fn the_nearest_variant_below_fits_best() {
    let asked = parse("linux/arm/v7");
    let rank = |text| asked.rank(&parse(text));
    assert!(rank("linux/arm/v7") > rank("linux/arm/v6"));
    assert!(rank("linux/arm/v6") > rank("linux/arm/v5"));
    assert!(rank("linux/arm/v5").is_some());
    for other in ["linux/arm/v8", "linux/arm64", "windows/arm/v7", "linux/amd64", "linux/arm/odd"] {
        assert_eq!(rank(other), None, "{other}");
    }
    assert!(parse("linux/amd64").rank(&parse("linux/amd64/v2")).is_none());
    assert!(parse("linux/amd64/v3").rank(&parse("linux/amd64")).is_some());
    assert!(parse("linux/arm64/v9").rank(&parse("linux/arm64")).is_some());
}

#[test]
fn the_host_is_a_known_platform() {
    let host = Platform::host();
    assert_eq!(host.os(), "linux");
    assert!(!host.is_unknown());
    assert_eq!(host.to_string().parse::<Platform>().unwrap(), host);
    assert!(Platform::new("unknown", "unknown", "").is_unknown());
}
