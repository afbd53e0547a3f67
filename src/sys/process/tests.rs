use super::*;

#[test]
fn versions_of_distributions_are_read() {
    let version = |major, minor| KernelVersion { major, minor };
    assert_eq!(parse_version("6.1.0-18-amd64"), version(6, 1));
    assert_eq!(parse_version("6.12"), version(6, 12));
    assert_eq!(parse_version("5.18.0-rc3+"), version(5, 18));
    assert_eq!(parse_version("garbage"), version(0, 0));
    assert!(version(6, 2) < version(6, 13));
    assert!(kernel_version() >= version(5, 18));
}

#[test]
fn limits_are_read() {
    assert!(nofile_limit() > 10);
}
