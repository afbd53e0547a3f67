//! POSIX ACLs as new objects inherit them. The kernel leaves this to the filesystem (FUSE with
//! `DONT_MASK`); the upper cannot do it, since objects are staged elsewhere.
//!
//! The format is that of the extended attribute (linux/posix_acl_xattr.h): a version, then entries
//! of tag, permissions and id, little-endian.

use crate::errno::Result;

/// The attribute that holds a directory's default ACL.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";
/// The attribute that holds an object's ACL.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP: u16 = 0x08;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const HEADER: usize = 4;
const ENTRY: usize = 8;

/// What a new object gets from the default ACL of its directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inherited {
    /// Its permission bits.
    pub(super) perm: u16,
    /// Its ACL, if the permission bits do not say it all.
    pub(super) access: Option<Vec<u8>>,
}

/// Applies the default ACL `acl` to an object that is made with `perm`, as the kernel's
/// `posix_acl_create_masq` does. `None` if the attribute's value is not an ACL.
pub(super) fn inherit(acl: &[u8], perm: u16) -> Option<Inherited> {
    let header = acl.get(..HEADER)?;
    let entries = acl.get(HEADER..)?;
    if header != [2, 0, 0, 0] || entries.len() % ENTRY != 0 || entries.is_empty() {
        return None;
    }
    let has_mask = entries.chunks_exact(ENTRY).any(|entry| tag_of(entry) == Some(MASK));
    let mut access = header.to_vec();
    let mut result = perm & !0o777;
    let mut extended = false;
    for entry in entries.chunks_exact(ENTRY) {
        let tag = tag_of(entry)?;
        let mut bits = u16::from_le_bytes([*entry.get(2)?, *entry.get(3)?]) & 7;
        match tag {
            USER_OBJ => {
                bits &= (perm >> 6) & 7;
                result |= bits << 6;
            }
            OTHER => {
                bits &= perm & 7;
                result |= bits;
            }
            MASK => {
                extended = true;
                bits &= (perm >> 3) & 7;
                result |= bits << 3;
            }
            GROUP_OBJ if !has_mask => {
                bits &= (perm >> 3) & 7;
                result |= bits << 3;
            }
            GROUP_OBJ => {}
            _ => extended = true,
        }
        access.extend_from_slice(entry.get(..2)?);
        access.extend_from_slice(&bits.to_le_bytes());
        access.extend_from_slice(entry.get(4..)?);
    }
    Some(Inherited { perm: result, access: extended.then_some(access) })
}

/// `acl` with the ids of its users and groups translated. A value that is no ACL stays as it is:
/// whoever gets it will say so.
///
/// # Errors
/// What `user` and `group` say.
pub(super) fn translate(
    acl: &[u8],
    user: impl Fn(u32) -> Result<u32>,
    group: impl Fn(u32) -> Result<u32>,
) -> Result<Vec<u8>> {
    let mut out = acl.to_vec();
    let entries = out.get_mut(HEADER..).unwrap_or_default();
    for entry in entries.chunks_exact_mut(ENTRY) {
        let tag = tag_of(entry);
        let Some(place) = entry.get_mut(4..) else { continue };
        let Ok(bytes) = <[u8; 4]>::try_from(&*place) else { continue };
        let id = u32::from_le_bytes(bytes);
        let id = match tag {
            Some(USER) => user(id)?,
            Some(GROUP) => group(id)?,
            _ => id,
        };
        place.copy_from_slice(&id.to_le_bytes());
    }
    Ok(out)
}

fn tag_of(entry: &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes([*entry.first()?, *entry.get(1)?]))
}

#[cfg(test)]
mod tests;
