use super::*;
use crate::layer::What;
use crate::layer::mem::MemLayer;

const FILE: New<'static> =
    New { what: What::File, perm: 0o644, uid: 0, gid: 0, xattrs: &[], marks: &[] };

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

#[test]
fn exactly_one_change_fails_and_is_not_done() {
    let mem = MemLayer::new(1);
    let fault = FaultLayer::new(Arc::clone(&mem) as Arc<dyn Upper>);
    fault.arm(Fault::Fail(2, Errno::ENOSPC));
    let entry = fault.create(fault.root(), name("a"), &FILE).unwrap();
    let refused = fault.create(fault.root(), name("b"), &FILE).unwrap_err();
    assert_eq!(refused.errno(), Errno::ENOSPC);
    let data = fault.open_write(entry.id).unwrap();
    assert_eq!(data.write_at(b"x", 0).unwrap(), 1);
    assert_eq!(fault.count(), 3);
    assert_eq!(mem.dump(), "/ dir 0755 0:0\n/a file \"x\" 0644 0:0\n");
}

#[test]
fn after_the_stop_nothing_is_done_and_reading_works() {
    let mem = MemLayer::new(1);
    let fault = FaultLayer::new(Arc::clone(&mem) as Arc<dyn Upper>);
    fault.arm(Fault::Stop(2));
    let staged = fault.stage(&FILE).unwrap();
    let data = fault.open_write(staged.id).unwrap();
    assert_eq!(data.write_at(b"x", 0).unwrap_err().errno(), Errno::EIO);
    assert_eq!(data.set_len(3).unwrap_err().errno(), Errno::EIO);
    assert_eq!(data.attr().unwrap().size, 0);
    fault.discard(staged);
    assert_eq!((mem.staged_count(), mem.live_refs()), (1, 0), "what was staged stays in work");
}
