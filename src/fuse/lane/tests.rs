//! Where jobs run.

use std::sync::mpsc::channel;
use std::thread::current;

use super::*;

#[test]
fn the_last_free_thread_hands_over() {
    let lane = Lane::new(2);
    let (inner_lane, here) = (lane.clone(), current().id());
    let (send, receive) = channel();
    // The outer job occupies this thread, as the one of two; the inner one finds the last.
    lane.run(move || {
        let outer = current().id();
        inner_lane.run(move || send.send((outer, current().id())).unwrap());
    });
    let (outer, inner) = receive.recv().unwrap();
    assert_eq!(outer, here);
    assert_ne!(inner, here);
    assert_eq!(lane.here.load(Ordering::Relaxed), 0);
}

#[test]
fn a_single_thread_never_does_long_work() {
    let lane = Lane::new(1);
    let here = current().id();
    let (send, receive) = channel();
    lane.run(move || send.send(current().id()).unwrap());
    assert_ne!(receive.recv().unwrap(), here);
}

#[test]
fn beyond_the_most_the_caller_works() {
    let lane = Lane::new(1);
    lane.elsewhere.store(MOST, Ordering::Relaxed);
    let here = current().id();
    let (send, receive) = channel();
    lane.run(move || send.send(current().id()).unwrap());
    assert_eq!(receive.try_recv().unwrap(), here);
    assert_eq!(lane.elsewhere.load(Ordering::Relaxed), MOST);
}
