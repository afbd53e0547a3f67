use super::{Gap, Results, VERSION, Warning};
use crate::bench::machine::Machine;
use crate::bench::workload::{Scale, all};

fn machine() -> Machine {
    Machine {
        kernel: "6.18".to_owned(),
        cpu: "a CPU".to_owned(),
        cpus: 4,
        memory: 8 << 30,
        virtualized: false,
        filesystem: "ext4 (rw)".to_owned(),
        load: 0.1,
        governor: None,
    }
}

/// A run with three rounds of `stat` on three targets.
fn run() -> Results {
    let mut results = Results::new("plyfs bench".to_owned(), 5, false, machine());
    let workloads = all(Scale::Tiny);
    let stat = workloads.iter().find(|workload| workload.name == "stat").unwrap();
    for (target, values) in
        [("plyfs", [3.0, 3.3, 3.6]), ("overlay", [1.0, 1.1, 1.2]), ("plain", [0.5, 0.5, 0.5])]
    {
        for value in values {
            results.add(stat, target, &[value]);
        }
    }
    results
}

#[test]
fn what_is_written_is_read_back() {
    let mut results = run();
    let gap = |wrong| Gap {
        workload: "stat".to_owned(),
        target: "reflink".to_owned(),
        why: "no reflinks".to_owned(),
        wrong,
    };
    results.gaps.push(gap(false));
    results.warnings.push(Warning::Busy { load: 3.0, cpus: 2 });
    results.warnings.push(Warning::DebugBuild);
    let text = results.to_json().unwrap();
    assert_eq!(Results::from_json(&text).unwrap(), results);
    assert!(!results.is_wrong());
    results.gaps.push(gap(true));
    assert!(results.is_wrong());
}

#[test]
fn another_version_or_another_file_is_refused() {
    let text = run().to_json().unwrap();
    let refused = |text: &str| Results::from_json(text).unwrap_err().to_string();
    let version = format!("\"version\": {VERSION}");
    assert!(text.contains(&version));
    assert!(refused(&text.replace(&version, "\"version\": 999")).contains("version is 999"));
    assert!(refused(&text.replace("plyfs-bench", "fio")).contains("format is 'fio'"));
    assert!(refused("{}").contains("not a results.json"));
    assert!(refused("a,b\n1,2\n").contains("not a results.json"));
}

#[test]
fn ratios_are_to_overlayfs_or_else_to_the_plain_directory() {
    let mut results = run();
    assert_eq!(results.reference(), Some("overlay"));
    let ratio = results.ratio("stat", "", "plyfs").unwrap();
    assert!((ratio.value - 3.0).abs() < 1e-9 && (ratio.high - 3.0).abs() < 1e-9, "{ratio:?}");
    assert_eq!(results.ratio("stat", "", "fuse-overlayfs"), None);
    results.series.retain(|series| series.target != "overlay");
    assert_eq!(results.reference(), Some("plain"));
    results.series.retain(|series| series.target == "plyfs");
    assert_eq!(results.reference(), Some("plyfs"));
    results.series.clear();
    assert_eq!(results.reference(), None);
}

#[test]
fn a_noisy_machine_is_told_of_and_a_quiet_one_is_not() {
    let mut results = run();
    results.judge(0.0, false);
    assert_eq!(results.warnings, []);
    results.machine.load = 3.5;
    results.machine.filesystem = "tmpfs (rw)".to_owned();
    results.machine.governor = Some("powersave".to_owned());
    results.rounds = 3;
    results.series[0].values = vec![3.0, 30.0, 9.0];
    results.judge(0.1, false);
    let said: Vec<_> = results.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 6, "{said:?}");
    assert!(said[0].contains("a load of 3.5 on 4 CPUs"), "{said:?}");
    assert!(said[1].contains("10 %"), "{said:?}");
    assert!(said[5].contains("1 of 2 intervals"), "{said:?}");
    assert!(results.warnings.iter().all(|warning| !warning.advice().is_empty()));
}
