use super::markdown;
use crate::bench::report::sample;

#[test]
fn tables_have_as_many_columns_as_headings() {
    let text = markdown(&sample());
    let mut columns = 0;
    for line in text.lines() {
        let bars = line.matches('|').count() - line.matches("\\|").count();
        if line.starts_with("| workload") {
            columns = bars;
        } else if line.starts_with('|') {
            assert_eq!(bars, columns, "{line}");
        }
    }
    assert_eq!(columns, 5);
}

#[test]
fn the_worst_comes_first_and_nothing_is_kept_back() {
    let text = markdown(&sample());
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no '{what}' in {text}"));
    assert!(at("\n| read-first |") < at("\n| stat |") && at("\n| stat |") < at("\n| create |"));
    at("wrong: create on plain: wrong result: &lt;b>");
    at("* fuse-overlayfs: cannot be measured here: there is &lt;no> program");
    at("**read-first**: ");
}
