//! Ids of nodes, over the life of a slot.

use super::*;
use crate::attr::Kind;
use crate::union::node::State;

fn intern(table: &Table, ino: u64) -> Arc<Node> {
    let make = |id| Node::new(id, ino, Kind::File, State::new(None));
    match table.intern(ino, || true, |_| false, make) {
        Interned::Made(node) => node,
        _ => panic!("number {ino} is taken"),
    }
}

/// 0 is "no such name" on the wire, and 1 the root: the kernel gives up on a root that turns into
/// a file, and with it on the mount.
#[test]
fn an_id_is_never_zero_or_the_roots_however_often_its_slot_is_used() {
    for ino in [SHARDS as u64, SHARDS as u64 + 1] {
        let table = Table::default();
        let first = intern(&table, ino);
        table.release(Arc::clone(&first), 1);
        // As after 268 million creations and deletions, which take a few hours.
        table.shard(shard_of(ino)).lock().slots[0].generation = GENERATIONS - 1;
        let last = intern(&table, ino);
        assert!(table.get(last.id).is_some());
        table.release(Arc::clone(&last), 1);
        let again = intern(&table, ino);
        assert!(again.id.0 > 1, "{:?}", again.id);
        assert!(table.get(again.id).is_some());
        assert!(table.get(last.id).is_none(), "an id of an earlier node");
    }
}
