//! The options that say whose files a mount shows: `uidmapping`, `gidmapping`, `squash_to_*` and
//! `xattr_permissions`, with the meaning that fuse-overlayfs gave them.

use super::OptionError;
use crate::layer::override_stat::Form;
use crate::union::ids::{IdMap, Ids, Range};

/// Whose files a mount shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    users: IdMap,
    groups: IdMap,
    squash_to_root: bool,
    squash_to_uid: Option<u32>,
    squash_to_gid: Option<u32>,
    /// Where owners are kept in an attribute.
    pub kept: Option<Form>,
}

impl Owners {
    /// Applies one option; false if it is none of these.
    pub(super) fn apply(&mut self, name: &[u8], value: Option<&[u8]>) -> Result<bool, OptionError> {
        let wrong = || OptionError::Owner(name.to_vec(), value.unwrap_or_default().to_vec());
        let id = || value.and_then(parse::<u32>).filter(|id| *id != u32::MAX).ok_or_else(wrong);
        let map = || value.and_then(ranges).ok_or_else(wrong);
        match name {
            b"uidmapping" => self.users = map()?,
            b"gidmapping" => self.groups = map()?,
            b"squash_to_root" if value.is_none() => self.squash_to_root = true,
            b"squash_to_uid" => self.squash_to_uid = Some(id()?),
            b"squash_to_gid" => self.squash_to_gid = Some(id()?),
            b"xattr_permissions" => {
                self.kept = match value {
                    Some(b"0") => None,
                    Some(b"1") => Some(Form::Privileged),
                    Some(b"2") => Some(Form::Containers),
                    _ => return Err(wrong()),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether ids are shown as others.
    pub fn shifts(&self) -> bool {
        self.users != IdMap::default() || self.groups != IdMap::default()
    }

    /// How a union translates owners. `server`: the user and group that everything new belongs to
    /// where everything is shown as one owner's; `None` for a server that may give files away.
    pub fn ids(&self, server: Option<(u32, u32)>) -> Ids {
        let root = self.squash_to_root.then_some(0);
        let squash = |map: &IdMap, to: Option<u32>, keeper: Option<u32>| match to.or(root) {
            Some(id) => map.clone().squashed(id, keeper),
            None => map.clone(),
        };
        Ids {
            users: squash(&self.users, self.squash_to_uid, server.map(|server| server.0)),
            groups: squash(&self.groups, self.squash_to_gid, server.map(|server| server.1)),
        }
    }
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Ranges in threes: the first id in the layers, the first id shown, how many. Before the first one
/// there may be a separator: podman puts one there.
fn ranges(list: &[u8]) -> Option<IdMap> {
    let list = list.strip_prefix(b":").unwrap_or(list);
    let numbers: Option<Vec<u32>> = list.split(|&byte| byte == b':').map(parse).collect();
    let numbers = numbers?;
    let threes = numbers.chunks_exact(3);
    if !threes.remainder().is_empty() {
        return None;
    }
    let range = |three: &[u32]| match three {
        [stored, shown, len] => Some(Range { stored: *stored, shown: *shown, len: *len }),
        _ => None,
    };
    IdMap::new(threes.map(range).collect::<Option<_>>()?).ok()
}
