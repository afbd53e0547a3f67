//! The extended attributes that overlay formats write on objects: their names, their encoding, and
//! what a user may see of them. Pure functions over bytes; the only place that knows a mark's name.

/// The name under which an attribute that a user sets is stored, if that is another one.
pub fn escape(_name: &[u8]) -> Option<Vec<u8>> {
    None
}

/// The name under which a user sees a stored attribute; `None` for one of the format's own.
pub fn unescape(stored: &[u8]) -> Option<Vec<u8>> {
    Some(stored.to_vec())
}
