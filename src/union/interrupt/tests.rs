//! Who is asked, and when.

use super::*;

#[test]
fn asked_only_under_a_question() {
    assert!(!is_possible() && check().is_ok());
    let stopped = under(Arc::new(|| true), check);
    assert_eq!(stopped.unwrap_err().errno(), Errno::EINTR);
    assert!(!is_possible() && check().is_ok());
    let panicked = std::panic::catch_unwind(|| under(Arc::new(|| true), || panic!("work")));
    assert!(panicked.is_err() && !is_possible());
}
