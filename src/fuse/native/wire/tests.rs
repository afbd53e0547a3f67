//! The layout, held against the kernel's.

use std::mem::size_of;

use super::*;

/// The sizes in the kernel's header, on which all offsets depend.
#[test]
fn structures_are_as_long_as_the_kernels() {
    let init = size_of::<InitIn>() + size_of::<InitExt>();
    assert_eq!((size_of::<InHeader>(), init, size_of::<InitOut>()), (40, 64, 64));
    assert_eq!((size_of::<Attr>(), size_of::<EntryOut>(), size_of::<AttrOut>()), (88, 128, 104));
    assert_eq!((size_of::<SetAttrIn>(), size_of::<WriteIn>(), size_of::<ReadIn>()), (88, 40, 40));
    assert_eq!((size_of::<CopyFileRangeIn>(), size_of::<StatFsOut>()), (56, 80));
    assert_eq!((size_of::<DirEnt>(), size_of::<CreateIn>(), size_of::<MkNodIn>()), (24, 16, 16));
}
