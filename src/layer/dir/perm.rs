//! Permission bits that would keep ourselves out. Who is not privileged cannot read the marks of a
//! file of mode 0200, nor look into a directory of mode 0000, though they be his own. So such
//! objects get the owner's bits on disk that we need, and a mark with those that they show.
//!
//! A file that has the mark also gets the sticky bit, which means nothing on one: so that it is
//! seen at the bits alone whether there is a mark to be read.

use crate::attr::{Attr, Kind};

/// The attribute that holds an object's ACL.
pub(super) const ACL: &[u8] = b"system.posix_acl_access";

/// The bits that a mark is about. Set-id bits are those on disk: the kernel takes them away.
const MARKED: u16 = 0o1777;
const OWNER: u16 = 0o700;
const STICKY: u16 = 0o1000;

const ACL_VERSION: [u8; 4] = [2, 0, 0, 0];
const ACL_ENTRY: usize = 8;
const ACL_USER_OBJ: [u8; 2] = [1, 0];

/// The bits that an object needs on disk which shows `perm`, for us to do our work on it.
pub(super) fn widened(kind: Kind, perm: u16) -> u16 {
    let need = match kind {
        Kind::File => 0o600,
        Kind::Dir => 0o700,
        _ => return perm,
    };
    match (perm & need == need, kind) {
        (true, _) => perm,
        (false, Kind::File) => perm | need | STICKY,
        (false, _) => perm | need,
    }
}

/// What an object shows that has the bits `real` and the mark `mark`.
pub(super) fn shown(real: u16, mark: Option<u16>) -> u16 {
    mark.map_or(real, |mark| real & !MARKED | mark)
}

/// The mark of an object that shows `perm`.
pub(super) fn mark(perm: u16) -> u16 {
    perm & MARKED
}

/// What is shown after an ACL with the owner's bits `owner` has made the bits on disk `real`: the
/// sticky bit is the one that was shown before.
pub(super) fn with_owner(real: u16, owner: u16, before: u16) -> u16 {
    real & !(OWNER | STICKY) | owner | before & STICKY
}

/// Whether this may be a file with a mark.
pub(super) fn is_widened_file(attr: &Attr) -> bool {
    attr.kind == Kind::File && attr.perm & STICKY != 0
}

/// Whether a mark on this object counts. One on a file without the sticky bit was left by somebody
/// who changed the bits on disk and knows no marks.
pub(super) fn counts(attr: &Attr) -> bool {
    attr.kind != Kind::File || is_widened_file(attr)
}

/// The owner's bits of an ACL, at their place in the permission bits; `None` if it is none.
pub(super) fn acl_owner(acl: &[u8]) -> Option<u16> {
    let entries = acl.strip_prefix(&ACL_VERSION)?.chunks_exact(ACL_ENTRY);
    let owner = entries.clone().find(|entry| entry.starts_with(&ACL_USER_OBJ))?;
    match owner {
        [_, _, low, _, ..] => Some(u16::from(low & 7) << 6),
        _ => None,
    }
}

/// The ACL with the owner's bits of `perm`.
pub(super) fn acl_with_owner(acl: &[u8], perm: u16) -> Vec<u8> {
    let mut acl = acl.to_vec();
    if let Some(entries) = acl.get_mut(ACL_VERSION.len()..) {
        for entry in entries.chunks_exact_mut(ACL_ENTRY) {
            if let [1, 0, low, ..] = entry {
                *low = u8::try_from((perm & OWNER) >> 6).unwrap_or(7);
            }
        }
    }
    acl
}

#[cfg(test)]
mod tests;
