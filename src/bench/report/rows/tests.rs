use super::{outliers, rows};
use crate::bench::results::{Done, Gap, Results, Tried};
use crate::bench::workload::{Scale, all};

/// `stat`, `create` and `read-first` on three targets; plyfs is worst at reading.
pub(crate) fn sample() -> Results {
    let machine = crate::bench::machine::Machine::here(std::path::Path::new("/"));
    let mut results = Results::new("plyfs bench".to_owned(), 5, false, machine);
    let workloads = all(Scale::Tiny);
    let values = [
        ("stat", [1e-6, 1.5e-6, 0.9e-6]),
        ("create", [1e-4, 1.4e-4, 0.5e-4]),
        ("read-first", [1e-4, 9e-4, 1e-4]),
    ];
    for (name, medians) in values {
        let workload = workloads.iter().find(|workload| workload.name == name).unwrap();
        results.workloads.push(Done::of(workload));
        for (target, median) in ["overlay", "plyfs", "plain"].into_iter().zip(medians) {
            for part in [1.0, 1.01, 0.99, 1.02, 0.98] {
                results.add(workload, target, &[median * part]);
            }
        }
    }
    for name in ["plyfs", "overlay", "plain", "fuse-overlayfs"] {
        let cannot = (name == "fuse-overlayfs").then(|| "there is <no> program".to_owned());
        let about = format!("what {name} is");
        results.targets.push(Tried { name: name.to_owned(), about, cannot });
    }
    results.gaps.push(Gap {
        workload: "create".to_owned(),
        target: "plain".to_owned(),
        why: "wrong result: <b>".to_owned(),
        wrong: true,
    });
    results.seconds = 12.0;
    results
}

#[test]
fn the_worst_comes_first_whoever_it_is_of() {
    let results = sample();
    let rows = rows(&results);
    let names: Vec<_> = rows.iter().map(super::Row::name).collect();
    assert_eq!(names, ["read-first", "stat", "create"]);
    let targets: Vec<_> = rows[0].cells.iter().map(|cell| cell.target).collect();
    assert_eq!(targets, ["overlay", "plyfs", "plain"], "the reference first, then as named");
    assert!(rows[0].cells[0].ratio.is_none());
    let ratio = rows[0].cells[1].ratio.unwrap();
    assert!((ratio.value - 9.0).abs() < 1e-9, "{ratio:?}");
    assert!(rows[2].cells[2].gap.is_some_and(|gap| gap.wrong));
}

#[test]
fn a_value_far_off_is_named_with_its_round() {
    let mut results = sample();
    assert_eq!(outliers(&rows(&results)), Vec::<String>::new());
    let series = results.series.iter_mut().find(|series| series.target == "plyfs").unwrap();
    series.values[3] = 1.0;
    let named = outliers(&rows(&results));
    assert_eq!(named, ["stat on plyfs, round 4: 1.00 s, median 1.50 us"]);
}

#[test]
fn the_terminal_shows_everything_that_counts() {
    let text = crate::bench::report::terminal(&sample());
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no '{what}' in:\n{text}"));
    assert!(at("\nread-first") < at("\nstat") && at("\nstat") < at("\ncreate"));
    at("9.00 (9.00..9.00)");
    at("100 us/MiB");
    at("WRONG: create on plain");
    at("fuse-overlayfs: cannot be measured here");
    at("plyfs: what plyfs is");
    assert!(text.lines().all(|line| !line.ends_with(' ')), "{text}");
}
