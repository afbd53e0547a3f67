use super::compare;
use crate::bench::report::changes;
use crate::bench::report::sample;
use crate::bench::results::Results;

/// As measured, but with one target's times multiplied.
fn times(results: &Results, target: &str, factor: f64) -> Results {
    let mut results = results.clone();
    for series in results.series.iter_mut().filter(|series| series.target == target) {
        for value in &mut series.values {
            *value *= factor;
        }
    }
    results
}

#[test]
fn what_became_slower_is_told_and_what_did_not_is_not() {
    let old = sample();
    let new = times(&old, "plyfs", 2.0);
    let comparison = compare(&old, &new);
    assert_eq!(comparison.changes.len(), 9);
    let (slower, rest) = comparison.changes.split_at(3);
    assert!(slower.iter().all(|change| change.target == "plyfs" && change.telling().tells()));
    assert!(rest.iter().all(|change| !change.telling().tells()), "{rest:?}");
    assert!((slower[0].ratio.value - 2.0).abs() < 0.1, "{slower:?}");
    assert_eq!(comparison.doubts, Vec::<String>::new());
    let text = changes(&comparison);
    assert!(text.contains("3 slower, 0 faster, 6 that cannot be told apart"), "{text}");
    assert!(text.contains("stat") && text.contains("2.00 ("), "{text}");
}

/// A machine that is twice as slow makes everything twice as slow, and nothing any worse.
#[test]
fn a_slower_machine_is_no_change_of_what_is_measured() {
    let old = sample();
    let names = ["plyfs", "overlay", "plain"];
    let mut new = names.iter().fold(old.clone(), |results, name| times(&results, name, 2.0));
    new.machine.cpu = "another".to_owned();
    let comparison = compare(&old, &new);
    for change in &comparison.changes {
        assert!(change.ratio.tells(), "{change:?}");
        assert_eq!(change.telling().tells(), change.target == "overlay", "{change:?}");
    }
    assert_eq!(comparison.doubts.len(), 1);
    assert!(comparison.doubts[0].contains("the processor differs"));
}

#[test]
fn runs_with_nothing_in_common_say_so() {
    let old = sample();
    let mut new = sample();
    new.workloads.retain(|workload| workload.name == "nothing");
    let comparison = compare(&old, &new);
    assert!(comparison.changes.is_empty());
    assert!(changes(&comparison).contains("nothing in common"));
}
