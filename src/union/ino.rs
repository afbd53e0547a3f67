//! Inode numbers as the mount shows them: unique in it, and the same after a copy-up and a remount.
//!
//! A lower object shows its own number, a copy shows its origin's (kept with it as
//! `overlay.plyfs.ino`). On one filesystem these are unique as they are. With several, the
//! number of the filesystem goes into the top byte. Numbers 0 and 1 are never shown for
//! anything but a root, since FUSE gives them a meaning.

use std::collections::HashMap;

use parking_lot::Mutex;

const SHIFT: u32 = 56;
const LOW: u64 = (1 << SHIFT) - 1;
/// The top byte of numbers that are made up for this mount only.
const MADE_UP: u64 = 0xff << SHIFT;

/// The mapping from (filesystem, its inode number) to the number shown.
#[derive(Debug)]
pub(super) struct InoMap {
    /// `st_dev` of each filesystem of the stack.
    filesystems: Vec<u64>,
    made_up: Mutex<MadeUp>,
}

#[derive(Debug, Default)]
struct MadeUp {
    next: u64,
    /// Numbers too large to carry a filesystem's index.
    folded: HashMap<(u64, u64), u64>,
}

impl InoMap {
    /// For layers on these filesystems, repetitions allowed; their order must be that of the stack.
    pub(super) fn new(devices: impl IntoIterator<Item = u64>) -> Self {
        let mut filesystems = Vec::new();
        for device in devices {
            if !filesystems.contains(&device) {
                filesystems.push(device);
            }
        }
        Self { filesystems, made_up: Mutex::default() }
    }

    /// The number to show for `ino` of the filesystem `device`.
    pub(super) fn map(&self, device: u64, ino: u64) -> u64 {
        let index = self.filesystems.iter().position(|d| *d == device).unwrap_or_default() as u64;
        if index == 0 && ino > 1 && ino < MADE_UP {
            // The first filesystem's numbers stay as they are; the others' carry a top byte that it
            // does not use unless its own numbers exceed 2^56, in which case identity is checked
            // when nodes meet.
            return ino;
        }
        if index < 0xff && ino <= LOW && (index > 0 || ino <= 1) {
            let tag = if index == 0 { 0xfe } else { index };
            return (tag << SHIFT) | ino;
        }
        let mut made_up = self.made_up.lock();
        if let Some(known) = made_up.folded.get(&(device, ino)) {
            return *known;
        }
        made_up.next += 1;
        let number = MADE_UP | made_up.next;
        made_up.folded.insert((device, ino), number);
        number
    }

    /// A number for an object whose own is already shown by another one.
    pub(super) fn fresh(&self) -> u64 {
        let mut made_up = self.made_up.lock();
        made_up.next += 1;
        MADE_UP | made_up.next
    }
}
