use std::io::Write;

use super::{PAGE, Touched, fill, sum_of_pages};

#[test]
fn what_a_map_says_is_what_the_file_has() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[3; 2 * PAGE + 1]).unwrap();
    assert_eq!(sum_of_pages(&file, 2 * PAGE as u64 + 1).unwrap(), 9);
    fill(&file, PAGE as u64, 5).unwrap();
    assert_eq!(sum_of_pages(&file, 2 * PAGE as u64 + 1).unwrap(), 11);
    drop(Touched::of(&file, PAGE as u64).unwrap());
    for wrong in [0, 3 * PAGE as u64] {
        assert!(sum_of_pages(&file, wrong).is_err());
    }
}
