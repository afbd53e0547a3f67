//! Interrupts before, during and after their requests.

use super::*;

#[test]
fn an_interrupt_may_come_before_its_request() {
    let interrupts = Interrupts::default();
    interrupts.interrupt(7);
    let running = interrupts.register(7, 0);
    assert!(running.interrupted.load(Ordering::Relaxed));
    drop(running);
    let running = interrupts.register(8, 0);
    assert!(!running.interrupted.load(Ordering::Relaxed));
    interrupts.interrupt(8);
    assert!(running.interrupted.load(Ordering::Relaxed));
    drop(running);
    assert!(interrupts.table.lock().running.is_empty());
    for unique in 0..1000 {
        interrupts.interrupt(unique);
    }
    assert_eq!(interrupts.table.lock().early.len(), EARLY);
}

#[test]
fn a_signal_that_does_not_kill_stops_nothing() {
    let interrupts = Interrupts::default();
    let running = interrupts.register(1, std::process::id());
    interrupts.interrupt(1);
    assert!(!(running.question())(), "this process is not being killed");
}
