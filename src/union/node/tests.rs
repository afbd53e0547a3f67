//! How large nodes are: there are as many as the kernel remembers names.

use super::{Node, State};

#[test]
fn a_node_stays_small() {
    println!("node {} state {}", size_of::<Node>(), size_of::<State>());
    assert!(size_of::<Node>() <= 192, "{}", size_of::<Node>());
}
