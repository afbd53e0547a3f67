//! What is sent to the system's logger.

use super::*;

#[test]
fn lines_carry_facility_severity_and_process() {
    assert_eq!(datagram(Level::ERROR, 7, b"it broke\n"), b"<27>plyfs[7]: it broke");
    assert_eq!(datagram(Level::TRACE, 12, b"x"), b"<31>plyfs[12]: x");
}

#[test]
fn the_option_names_a_file_or_one_of_two_words() {
    assert_eq!(Sink::of(Some(OsStr::new("none"))), Sink::Nowhere);
    assert_eq!(Sink::of(Some(OsStr::new("syslog"))), Sink::System);
    assert_eq!(Sink::of(Some(OsStr::new("./none"))), Sink::File(PathBuf::from("./none")));
}
