use std::path::Path;

use super::{Machine, Ticks, memory};

#[test]
fn the_texts_of_proc_are_understood() {
    let before = Ticks::of("cpu  100 0 50 800 20 0 10 20 7 7\ncpu0 1 2 3\n");
    assert_eq!(before, Ticks { all: 1000, idle: 820, stolen: 20 });
    let after = Ticks { all: 2000, idle: 900, stolen: 70 };
    assert!((after.stolen_since(before) - 0.05).abs() < 1e-9);
    assert_eq!(Ticks::of(""), Ticks::default());
    assert_eq!(memory("MemFree: 1 kB\nMemTotal:    2048 kB\n"), 2 << 20);
}

#[test]
fn this_machine_has_a_kernel_and_a_filesystem() {
    let machine = Machine::here(Path::new("/proc"));
    assert!(machine.cpus > 0 && machine.memory > 1 << 20);
    assert!(machine.kernel.contains('.'));
    assert!(machine.filesystem.starts_with("proc "), "{}", machine.filesystem);
}
