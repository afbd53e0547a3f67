use std::collections::BTreeSet;

use super::{Scale, all, matches};

#[test]
fn patterns_mean_what_a_shell_means_by_them() {
    for (pattern, name) in [
        ("stat", "stat"),
        ("copyup-*", "copyup-4k"),
        ("*", ""),
        ("*-cold", "stat-cold"),
        ("s?at", "stat"),
        ("*a*a*", "banana"),
        ("r*d*-first", "readdir-first"),
    ] {
        assert!(matches(pattern, name), "{pattern} {name}");
    }
    for (pattern, name) in
        [("stat", "stat-first"), ("", "x"), ("s?at", "sat"), ("*-cold", "cold"), ("*b*b", "banana")]
    {
        assert!(!matches(pattern, name), "{pattern} {name}");
    }
}

#[test]
fn workloads_have_names_of_their_own_and_say_what_they_do() {
    let workloads = all(Scale::Usual);
    let names: BTreeSet<_> = workloads.iter().map(|workload| &workload.name).collect();
    assert_eq!(names.len(), workloads.len());
    let tiny = all(Scale::Tiny);
    assert!(workloads.iter().zip(&tiny).all(|(usual, tiny)| usual.name == tiny.name));
    for workload in &workloads {
        let name = &workload.name;
        assert!(workload.what.len() > 15 && !workload.what.ends_with('.'), "{name}");
        assert!(!workload.metrics.is_empty(), "{name}");
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "{name}"
        );
    }
    assert!(workloads.iter().filter(|workload| workload.quick).count() >= 12);
}
