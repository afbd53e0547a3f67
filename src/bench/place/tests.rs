use std::fs;
use std::time::{Duration, SystemTime};

use super::{Place, locked};

#[test]
fn a_place_is_gone_afterwards() {
    let temp = tempfile::tempdir().unwrap();
    let place = Place::make(temp.path()).unwrap();
    let base = place.path().to_owned();
    let round = place.round().unwrap();
    fs::write(round.upper.join("file"), "text").unwrap();
    assert_ne!(place.round().unwrap().upper, round.upper);
    place.settle().unwrap();
    drop(place);
    assert!(!base.exists());
}

#[test]
fn what_is_large_goes_after_its_round_and_all_when_room_is_short() {
    let temp = tempfile::tempdir().unwrap();
    let place = Place::make(temp.path()).unwrap();
    let round = place.round().unwrap();
    fs::create_dir(round.upper.join("d")).unwrap();
    fs::write(round.upper.join("d/large"), vec![1; 2 << 20]).unwrap();
    fs::write(round.upper.join("d/small"), "text").unwrap();
    place.leave(&round, 0).unwrap();
    assert!(!round.upper.join("d/large").exists());
    assert!(round.upper.join("d/small").exists());
    place.leave(&round, u64::MAX).unwrap();
    assert!(!round.upper.exists());
}

#[test]
fn what_a_killed_process_left_is_swept() {
    let temp = tempfile::tempdir().unwrap();
    let (dead, alive) = (temp.path().join("plyfs-bench.1"), temp.path().join("plyfs-bench.2"));
    let other = temp.path().join("something else");
    let long_ago = SystemTime::now() - Duration::from_secs(100);
    for dir in [&dead, &alive, &other] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        super::super::open(dir).unwrap().set_modified(long_ago).unwrap();
    }
    let held = locked(&alive).unwrap();
    drop(Place::make(temp.path()).unwrap());
    assert!(!dead.exists() && alive.exists() && other.exists());
    drop(held);
}

#[test]
fn a_path_that_mount_options_cannot_say_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let odd = temp.path().join("a:b");
    fs::create_dir(&odd).unwrap();
    assert!(Place::make(&odd).is_err());
    assert!(Place::make(&temp.path().join("missing")).is_err());
}
