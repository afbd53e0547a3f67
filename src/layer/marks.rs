//! The extended attributes that overlay formats write on objects: their names, their encoding, and
//! what a user may see of them. Pure functions over bytes; the only place that knows a mark's name.

use super::{Mark, Marks, Nlink, NlinkBase};

/// The prefixes under which overlay formats keep their marks.
const PREFIXES: [&[u8]; 3] = [TRUSTED, USER, FUSE_OVERLAYFS];
const TRUSTED: &[u8] = b"trusted.overlay.";
const USER: &[u8] = b"user.overlay.";
/// Read, never written.
const FUSE_OVERLAYFS: &[u8] = b"user.fuseoverlayfs.";

/// What follows the prefix in the stored name of an attribute that is no mark, but which a user
/// named like one.
const ESCAPE: &[u8] = b"overlay.";

/// The default ACL of a directory.
pub const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Which attributes marks are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// `trusted.overlay.`: needs `CAP_SYS_ADMIN` in the initial user namespace.
    Trusted,
    /// `user.overlay.`: regular files and directories only.
    User,
}

impl Namespace {
    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Trusted => TRUSTED,
            Self::User => USER,
        }
    }
}

/// What a mark's name says, of the marks that this module decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// `opaque`: `y`, or `x` for a directory that holds whiteouts in attributes.
    Opaque,
    /// `redirect`
    Redirect,
    /// `metacopy`
    Metacopy,
    /// `impure`
    Impure,
    /// `nlink`
    Nlink,
    /// `origin`
    Origin,
    /// `whiteout`: an empty file is a whiteout, in a directory whose `opaque` is `x`.
    Whiteout,
    /// `plyfs.ino`
    Ino,
    /// `plyfs.nlink`: the link count of the lower file that this is a copy of.
    LowerNlink,
    /// `plyfs.literal`: the name begins with `.wh.` because a user called it so.
    Literal,
    /// `plyfs.kind`: what the empty file stands for.
    Kind,
    /// `plyfs.escapes`: the directory holds files with a `plyfs.kind`; perhaps, where a device is
    /// being [left](Left).
    Escapes,
    /// `plyfs.perm`: the permission bits that the object shows, which has others on disk.
    Perm,
    /// `plyfs.aside`: more marks of this object lie in the work directory.
    Aside,
}

impl Tag {
    /// The name after the prefix.
    pub fn suffix(self) -> &'static [u8] {
        match self {
            Self::Opaque => b"opaque",
            Self::Redirect => b"redirect",
            Self::Metacopy => b"metacopy",
            Self::Impure => b"impure",
            Self::Nlink => b"nlink",
            Self::Origin => b"origin",
            Self::Whiteout => b"whiteout",
            Self::Ino => b"plyfs.ino",
            Self::LowerNlink => b"plyfs.nlink",
            Self::Literal => b"plyfs.literal",
            Self::Kind => b"plyfs.kind",
            Self::Escapes => b"plyfs.escapes",
            Self::Perm => b"plyfs.perm",
            Self::Aside => b"plyfs.aside",
        }
    }

    const ALL: [Self; 14] = [
        Self::Opaque,
        Self::Redirect,
        Self::Metacopy,
        Self::Impure,
        Self::Nlink,
        Self::Origin,
        Self::Whiteout,
        Self::Ino,
        Self::LowerNlink,
        Self::Literal,
        Self::Kind,
        Self::Escapes,
        Self::Perm,
        Self::Aside,
    ];

    /// The name under which the mark is stored.
    pub fn stored(self, namespace: Namespace) -> Vec<u8> {
        stored_as(self.suffix(), namespace)
    }
}

/// The name under which a mark is stored of which this is the name after the prefix.
pub fn stored_as(suffix: &[u8], namespace: Namespace) -> Vec<u8> {
    [namespace.prefix(), suffix].concat()
}

/// What a stored name is to a reader of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No mark: an attribute of the user's, perhaps escaped.
    Plain,
    /// A mark that this module decodes.
    Known(Tag),
    /// A mark that may be passed over.
    Harmless,
    /// A mark whose meaning is not followed.
    Unknown,
}

/// Sorts a stored name.
pub fn classify(stored: &[u8]) -> Class {
    let Some((prefix, suffix)) = split(stored) else { return Class::Plain };
    if suffix.starts_with(ESCAPE) {
        return Class::Plain;
    }
    if let Some(tag) = Tag::ALL.into_iter().find(|tag| tag.suffix() == suffix) {
        return Class::Known(tag);
    }
    // The kernel's `protattr` keeps inode flags that a lower file had; no content depends on it.
    let harmless: &[&[u8]] = &[b"upper", b"uuid", b"protattr"];
    if harmless.contains(&suffix) || suffix.starts_with(b"plyfs.") {
        return Class::Harmless;
    }
    // fuse-overlayfs marks what it created so, and nothing is to be followed; owners are the
    // business of `override_stat`.
    if prefix == FUSE_OVERLAYFS && (suffix == b"whiteout" || suffix == b"override_stat") {
        return Class::Harmless;
    }
    Class::Unknown
}

fn split(name: &[u8]) -> Option<(&'static [u8], &[u8])> {
    PREFIXES.into_iter().find_map(|prefix| name.strip_prefix(prefix).map(|rest| (prefix, rest)))
}

/// Whether the stored name is a mark, which no user sees.
pub fn is_private(stored: &[u8]) -> bool {
    classify(stored) != Class::Plain
}

/// The name to store for an attribute that a user calls `name`, if it is another one: a name that
/// would be taken for a mark. `trusted.overlay.x` becomes `trusted.overlay.overlay.x`, as the
/// kernel's overlayfs has it.
pub fn escape(name: &[u8]) -> Option<Vec<u8>> {
    split(name).map(|(prefix, rest)| [prefix, ESCAPE, rest].concat())
}

/// The name that a user sees for a stored one; `None` if that is a mark.
pub fn unescape(stored: &[u8]) -> Option<Vec<u8>> {
    match split(stored) {
        None => Some(stored.to_vec()),
        Some((prefix, rest)) => rest.strip_prefix(ESCAPE).map(|rest| [prefix, rest].concat()),
    }
}

/// What a mark is called, and its value.
pub fn encode(mark: &Mark<'_>) -> (Tag, Vec<u8>) {
    match mark {
        Mark::Opaque => (Tag::Opaque, b"y".to_vec()),
        Mark::Redirect(path) => (Tag::Redirect, path.to_vec()),
        Mark::Impure => (Tag::Impure, b"y".to_vec()),
        Mark::Ino(ino) => (Tag::Ino, ino.to_string().into_bytes()),
        Mark::Nlink(nlink) => (Tag::Nlink, encode_nlink(*nlink)),
        Mark::LowerNlink(nlink) => (Tag::LowerNlink, nlink.to_string().into_bytes()),
        Mark::Origin(handle) => (Tag::Origin, handle.to_vec()),
        // As Linux before 6.6 wrote it, and later ones do without fs-verity.
        Mark::Metacopy => (Tag::Metacopy, Vec::new()),
    }
}

/// The value of `plyfs.perm`: the bits in octal.
pub fn encode_perm(perm: u16) -> Vec<u8> {
    format!("{perm:o}").into_bytes()
}

/// All that the marks on one object say: what the union knows of, and what stays in the layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "marks are there or not, each for itself")]
pub struct Decoded {
    /// For the union.
    pub marks: Marks,
    /// The directory holds whiteouts in attributes (`opaque=x`).
    pub xattr_whiteouts: bool,
    /// The object is a whiteout, if it is an empty file in a directory that may hold such.
    pub whiteout: bool,
    /// The name begins with `.wh.` because a user called it so.
    pub literal: bool,
    /// A character device 0:0 that a user made.
    pub char_zero: bool,
    /// The directory may hold such devices.
    pub escapes: bool,
    /// The permission bits to show (those of 0o1777) in the place of what the object has.
    pub perm: Option<u16>,
    /// More marks lie in the work directory.
    pub aside: bool,
    /// A name in the directory where one is being left.
    pub left: Option<Left>,
}

/// A device 0:0 that a rename leaves behind for its user (`RENAME_WHITEOUT`). One step moves the
/// object and leaves a whiteout, which cannot be told from one of the layer's own; so before that
/// step the directory says of which name it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The device's owner.
    pub uid: u32,
    /// The device's group.
    pub gid: u32,
    /// The name that is renamed.
    pub name: Box<[u8]>,
}

impl Left {
    /// The value of `plyfs.escapes` while it lasts.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = format!("c0:0 {} {} ", self.uid, self.gid).into_bytes();
        value.extend_from_slice(&self.name);
        value
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let mut words = value.splitn(4, |byte| *byte == b' ');
        if words.next()? != CHAR_ZERO {
            return None;
        }
        let mut number = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
        let (uid, gid) = (number()?, number()?);
        Some(Self { uid, gid, name: words.next()?.into() })
    }
}

/// Decodes the marks among the attributes called `names`, fetching those values that matter.
/// `get` returns the value of one; `None` if it has gone meanwhile.
pub fn decode<E>(
    names: &[Vec<u8>],
    mut get: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, E>,
) -> Result<Decoded, E> {
    let mut decoded = Decoded::default();
    let mut origin = None;
    for name in names {
        match classify(name) {
            Class::Plain if name == DEFAULT_ACL => decoded.marks.default_acl = true,
            Class::Plain | Class::Harmless => {}
            Class::Unknown => decoded.refuse(name, ""),
            Class::Known(Tag::Origin) => origin = Some(name),
            Class::Known(Tag::Impure) => decoded.marks.impure = true,
            Class::Known(Tag::Whiteout) => decoded.whiteout = true,
            Class::Known(Tag::Literal) => decoded.literal = true,
            Class::Known(Tag::Escapes) => {
                decoded.escapes = true;
                decoded.left = get(name)?.as_deref().and_then(Left::decode);
            }
            Class::Known(Tag::Aside) => decoded.aside = true,
            Class::Known(tag) => {
                if let Some(value) = get(name)? {
                    decoded.take(tag, name, &value);
                }
            }
        }
    }
    if let (Some(name), true) = (origin, decoded.marks.nlink.is_some()) {
        decoded.marks.origin = get(name)?.map(Vec::into_boxed_slice);
    }
    Ok(decoded)
}

impl Decoded {
    /// Takes in one mark whose value matters.
    fn take(&mut self, tag: Tag, name: &[u8], value: &[u8]) {
        let marks = &mut self.marks;
        match tag {
            Tag::Opaque if value == b"y" => marks.opaque = true,
            Tag::Opaque if value == b"x" => self.xattr_whiteouts = true,
            Tag::Redirect if is_redirect(value) => marks.redirect = Some(value.into()),
            Tag::Metacopy if is_bare_metacopy(value) => marks.metacopy = true,
            Tag::Metacopy => self.refuse(name, " with a digest"),
            Tag::Nlink => match decode_nlink(value) {
                Some(nlink) => marks.nlink = Some(nlink),
                None => self.refuse(name, " of no known form"),
            },
            Tag::Ino => match decode_ino(value) {
                Some(ino) => marks.ino = Some(ino),
                None => self.refuse(name, " of no known form"),
            },
            Tag::LowerNlink => match decode_ino(value).map(u32::try_from) {
                Some(Ok(nlink)) => marks.lower_nlink = Some(nlink),
                _ => self.refuse(name, " of no known form"),
            },
            Tag::Kind if value == CHAR_ZERO => self.char_zero = true,
            Tag::Perm => match decode_perm(value) {
                Some(perm) => self.perm = Some(perm),
                None => self.refuse(name, " of no known form"),
            },
            _ => self.refuse(name, " of no known value"),
        }
    }

    fn refuse(&mut self, name: &[u8], why: &str) {
        if self.marks.unknown.is_none() {
            self.marks.unknown = Some(format!("{}{why}", name.escape_ascii()).into());
        }
    }
}

/// The value of `plyfs.kind` for a character device 0:0.
pub const CHAR_ZERO: &[u8] = b"c0:0";

/// A redirect is an absolute path without empty, `.` or `..` components, or one plain name.
fn is_redirect(value: &[u8]) -> bool {
    let is_name =
        |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0);
    match value.strip_prefix(b"/") {
        Some(path) => path.split(|&byte| byte == b'/').all(is_name),
        None => is_name(value) && !value.contains(&b'/'),
    }
}

/// A metacopy mark is empty, or the kernel's `struct ovl_metacopy` (version, length, flags, digest
/// algorithm) without a digest.
fn is_bare_metacopy(value: &[u8]) -> bool {
    matches!(value, [] | [0, 4, 0, 0] | b"y")
}

fn encode_nlink(nlink: Nlink) -> Vec<u8> {
    let base = match nlink.base {
        NlinkBase::Upper => 'U',
        NlinkBase::Lower => 'L',
    };
    format!("{base}{:+}", nlink.delta).into_bytes()
}

fn decode_nlink(value: &[u8]) -> Option<Nlink> {
    let (base, delta) = value.split_first()?;
    let base = match base {
        b'U' => NlinkBase::Upper,
        b'L' => NlinkBase::Lower,
        _ => return None,
    };
    if !matches!(delta.first(), Some(b'+' | b'-')) {
        return None;
    }
    Some(Nlink { base, delta: std::str::from_utf8(delta).ok()?.parse().ok()? })
}

fn decode_ino(value: &[u8]) -> Option<u64> {
    if value.first() == Some(&b'+') {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok().filter(|&ino| ino != 0)
}

fn decode_perm(value: &[u8]) -> Option<u16> {
    let octal = value.iter().all(|byte| matches!(byte, b'0'..=b'7'));
    let text = std::str::from_utf8(value).ok().filter(|_| octal)?;
    u16::from_str_radix(text, 8).ok().filter(|perm| perm & !0o1777 == 0)
}

/// The bytes of a file handle before the handle itself in `struct ovl_fb`.
const FB_HEADER: usize = 21;

/// A file handle in the form of the kernel's `overlay.origin` (`struct ovl_fb`): version 0, magic
/// 0xfb, length, flags, type, UUID of the filesystem, handle. `None` for a handle too long or of a
/// type that the form cannot hold.
pub fn encode_origin(uuid: &[u8; 16], kind: i32, handle: &[u8]) -> Option<Vec<u8>> {
    let len = u8::try_from(FB_HEADER + handle.len()).ok()?;
    let kind = u8::try_from(kind).ok()?;
    let flags = u8::from(cfg!(target_endian = "big"));
    let mut fb = Vec::with_capacity(len.into());
    fb.extend_from_slice(&[0, 0xfb, len, flags, kind]);
    fb.extend_from_slice(uuid);
    fb.extend_from_slice(handle);
    Some(fb)
}

/// The UUID of the filesystem, the type and the bytes of a handle that [`encode_origin`] encoded,
/// or the kernel; `None` for anything else.
pub fn decode_origin(fb: &[u8]) -> Option<([u8; 16], i32, &[u8])> {
    let (head, handle) = fb.split_at_checked(FB_HEADER)?;
    let [0, 0xfb, len, flags, kind, uuid @ ..] = head else { return None };
    let ours = *flags & 1 == u8::from(cfg!(target_endian = "big"));
    (ours && usize::from(*len) == fb.len()).then_some(())?;
    Some((uuid.try_into().ok()?, i32::from(*kind), handle))
}

/// The name of an origin's entry in the index: its bytes in hexadecimal.
pub fn index_name(origin: &[u8]) -> Vec<u8> {
    origin.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

#[cfg(test)]
mod tests;
