use super::html;
use crate::bench::report::sample;

/// Every tag of the page that is opened is closed, in order.
fn well_formed(page: &str) {
    const ALONE: [&str; 4] = ["meta", "br", "!DOCTYPE", "circle"];
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag.split([' ', '/']).find(|name| !name.is_empty()).unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "</{closed}>");
        } else if !tag.ends_with('/') && !ALONE.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_page_is_well_formed_and_needs_no_network() {
    let page = html(&sample());
    well_formed(&page);
    for outside in ["http:", "https:", "<script", "<link", "url(", "@import", "<img"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("prefers-color-scheme: dark"));
    assert!(page.is_ascii());
}

#[test]
fn the_page_shows_what_was_measured_worst_first() {
    let page = html(&sample());
    let at = |what: &str| page.find(what).unwrap_or_else(|| panic!("no '{what}' in {page}"));
    assert!(at(">read-first<") < at(">stat<") && at(">stat<") < at(">create<"));
    assert!(at("9.00<br>") < at("<svg"), "ratios come first");
    at("there is &lt;no&gt; program");
    at("wrong result: &lt;b&gt;");
    assert!(!page.contains("<b>wrong") && !page.contains("<no>"));
}
