//! The methods that a layer around another one passes on as they are, written once.
//!
//! `pass_on! { name name ... }` in an implementation of [`Layer`](super::Layer) or
//! [`Upper`](super::Upper) hands those methods to `self.inner`; `pass_on! { after step; name ... }`
//! first calls `self.step()?`. `pass_on_data!` is for [`Data`](super::Data). No method of these
//! traits has a body, which a wrapper would get without saying so.

/// See [the module](self).
macro_rules! pass_on {
    (after $step:ident; $($name:ident)*) => { $(pass_on!(@$name [$step]);)* };
    ($($name:ident)*) => { $(pass_on!(@$name []);)* };

    (@root $s:tt) => { pass_on!(@fn $s root() -> Id); };
    (@root_entry $s:tt) => { pass_on!(@fn $s root_entry() -> Result<(Attr, Marks)>); };
    (@forget $s:tt) => { pass_on!(@fn $s forget(id: Id) -> ()); };
    (@attr $s:tt) => { pass_on!(@fn $s attr(id: Id) -> Result<Attr>); };
    (@marks $s:tt) => { pass_on!(@fn $s marks(id: Id) -> Result<Marks>); };
    (@readlink $s:tt) => { pass_on!(@fn $s readlink(id: Id) -> Result<Vec<u8>>); };
    (@getxattr $s:tt) => {
        pass_on!(@fn $s getxattr(id: Id, name: &[u8]) -> Result<Option<Vec<u8>>>);
    };
    (@listxattr $s:tt) => { pass_on!(@fn $s listxattr(id: Id) -> Result<Vec<Vec<u8>>>); };
    (@open $s:tt) => { pass_on!(@fn $s open(id: Id) -> Result<Arc<dyn Data>>); };
    (@fs $s:tt) => { pass_on!(@fn $s fs() -> u64); };
    (@handle $s:tt) => { pass_on!(@fn $s handle(id: Id) -> Result<Option<Vec<u8>>>); };
    (@ino_of $s:tt) => { pass_on!(@fn $s ino_of(handle: &[u8]) -> Result<Option<u64>>); };
    (@statfs $s:tt) => { pass_on!(@fn $s statfs() -> Result<StatFs>); };
    (@readdir $s:tt) => {
        pass_on!(@fn $s readdir(
            dir: Id, each: &mut dyn FnMut(DirItem<'_>) -> Result<()>
        ) -> Result<()>);
    };

    (@create $s:tt) => {
        pass_on!(@fn $s create(dir: Id, name: Name<'_>, new: &New<'_>) -> Result<Entry>);
    };
    (@sync_dir $s:tt) => { pass_on!(@fn $s sync_dir(id: Id) -> Result<()>); };
    (@sync_marks $s:tt) => { pass_on!(@fn $s sync_marks() -> Result<()>); };
    (@stage $s:tt) => { pass_on!(@fn $s stage(new: &New<'_>) -> Result<Staged>); };
    (@stage_link $s:tt) => { pass_on!(@fn $s stage_link(id: Id) -> Result<Staged>); };
    (@publish $s:tt) => {
        pass_on!(@fn $s publish(
            staged: &mut Staged, dir: Id, name: Name<'_>, how: How, quiet: bool
        ) -> Result<()>);
    };
    (@discard $s:tt) => { pass_on!(@fn $s discard(staged: Staged) -> ()); };
    (@discard_temp $s:tt) => { pass_on!(@fn $s discard_temp(temp: Name<'_>) -> ()); };
    (@whiteout $s:tt) => {
        pass_on!(@fn $s whiteout(dir: Id, name: Name<'_>, replace: bool) -> Result<()>);
    };
    (@clear_whiteout $s:tt) => {
        pass_on!(@fn $s clear_whiteout(dir: Id, name: Name<'_>) -> Result<()>);
    };
    (@rename $s:tt) => {
        pass_on!(@fn $s rename(
            from: (Id, Name<'_>), moved: Id, to: (Id, Name<'_>), other: Option<Id>, how: RenameHow
        ) -> Result<()>);
    };
    (@clear_opaque_entry $s:tt) => { pass_on!(@fn $s clear_opaque_entry(dir: Id) -> Result<()>); };
    (@link $s:tt) => {
        pass_on!(@fn $s link(id: Id, dir: Id, name: Name<'_>, quiet: bool) -> Result<()>);
    };
    (@unlink $s:tt) => { pass_on!(@fn $s unlink(dir: Id, name: Name<'_>) -> Result<()>); };
    (@rmdir $s:tt) => { pass_on!(@fn $s rmdir(dir: Id, name: Name<'_>) -> Result<()>); };
    (@withdraw $s:tt) => { pass_on!(@fn $s withdraw(dir: Id, name: Name<'_>) -> Result<Staged>); };
    (@pin $s:tt) => { pass_on!(@fn $s pin(id: Id) -> Result<()>); };
    (@unpin $s:tt) => { pass_on!(@fn $s unpin(id: Id) -> ()); };
    (@rebind $s:tt) => { pass_on!(@fn $s rebind(id: Id, other: Id) -> ()); };
    (@setattr $s:tt) => { pass_on!(@fn $s setattr(id: Id, set: &SetAttr) -> Result<Attr>); };
    (@setxattr $s:tt) => {
        pass_on!(@fn $s setxattr(id: Id, name: &[u8], value: &[u8], flags: i32) -> Result<()>);
    };
    (@removexattr $s:tt) => { pass_on!(@fn $s removexattr(id: Id, name: &[u8]) -> Result<()>); };
    (@set_mark $s:tt) => { pass_on!(@fn $s set_mark(id: Id, mark: &Mark<'_>) -> Result<()>); };
    (@clear_metacopy $s:tt) => { pass_on!(@fn $s clear_metacopy(id: Id) -> Result<()>); };
    (@index $s:tt) => { pass_on!(@fn $s index() -> Result<Id>); };
    (@sync $s:tt) => { pass_on!(@fn $s sync() -> Result<()>); };

    (@fn [$($step:ident)?] $name:ident($($arg:ident: $type:ty),*) -> $back:ty) => {
        fn $name(&self, $($arg: $type),*) -> $back {
            $(self.$step()?;)?
            self.inner.$name($($arg),*)
        }
    };
}

/// See [the module](self).
macro_rules! pass_on_data {
    (after $step:ident; $($name:ident)*) => { $(pass_on_data!(@$name [$step]);)* };
    ($($name:ident)*) => { $(pass_on_data!(@$name []);)* };

    (@read_at $s:tt) => {
        pass_on!(@fn $s read_at(buf: &mut [u8], offset: u64) -> Result<usize>);
    };
    (@write_at $s:tt) => { pass_on!(@fn $s write_at(buf: &[u8], offset: u64) -> Result<usize>); };
    (@set_len $s:tt) => { pass_on!(@fn $s set_len(size: u64) -> Result<()>); };
    (@sync $s:tt) => { pass_on!(@fn $s sync(data_only: bool) -> Result<()>); };
    (@allocate $s:tt) => {
        pass_on!(@fn $s allocate(mode: i32, offset: u64, len: u64) -> Result<()>);
    };
    (@seek $s:tt) => { pass_on!(@fn $s seek(offset: u64, what: Seek) -> Result<u64>); };
    (@attr $s:tt) => { pass_on!(@fn $s attr() -> Result<Attr>); };
    (@copy_from $s:tt) => {
        pass_on!(@fn $s copy_from(
            source: &dyn Data, source_offset: u64, offset: u64, len: u64
        ) -> Result<u64>);
    };
    (@reflink_from $s:tt) => { pass_on!(@fn $s reflink_from(source: &dyn Data) -> Result<()>); };
    (@removexattr $s:tt) => { pass_on!(@fn $s removexattr(name: &[u8]) -> Result<()>); };
    (@fd $s:tt) => { pass_on!(@fn $s fd() -> Option<BorrowedFd<'_>>); };
}

pub(crate) use {pass_on, pass_on_data};
