//! Tar archives as layers have them, written without a thought for what is allowed.

use std::fmt::Write as _;

/// An archive that grows entry by entry.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

/// One entry, with defaults that can be changed.
#[derive(Clone, Debug)]
pub struct Member {
    /// The path as it is written.
    pub path: Vec<u8>,
    /// The type flag.
    pub flag: u8,
    /// The mode.
    pub perm: u32,
    /// Owner and group.
    pub ids: (u32, u32),
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// The target of a link.
    pub link: Vec<u8>,
    /// Major and minor number.
    pub device: (u32, u32),
    /// The content.
    pub data: Vec<u8>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Member {
    /// An entry of this type.
    pub fn new(path: impl AsRef<[u8]>, flag: u8) -> Self {
        Self {
            path: path.as_ref().to_vec(),
            flag,
            perm: if flag == b'5' { 0o755 } else { 0o644 },
            ids: (0, 0),
            mtime: (1_000_000_000, 0),
            link: Vec::new(),
            device: (0, 0),
            data: Vec::new(),
            xattrs: Vec::new(),
        }
    }

    /// With this mode.
    #[must_use]
    pub fn perm(mut self, perm: u32) -> Self {
        self.perm = perm;
        self
    }

    /// With this owner and group.
    #[must_use]
    pub fn ids(mut self, uid: u32, gid: u32) -> Self {
        self.ids = (uid, gid);
        self
    }

    /// With this time.
    #[must_use]
    pub fn mtime(mut self, sec: i64, nsec: u32) -> Self {
        self.mtime = (sec, nsec);
        self
    }

    /// With this extended attribute.
    #[must_use]
    pub fn xattr(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.xattrs.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// A device's number.
    #[must_use]
    pub fn device(mut self, major: u32, minor: u32) -> Self {
        self.device = (major, minor);
        self
    }
}

impl Archive {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory.
    #[must_use]
    pub fn dir(self, path: impl AsRef<[u8]>) -> Self {
        self.member(&Member::new(path, b'5'))
    }

    /// Adds a regular file.
    #[must_use]
    pub fn file(self, path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        let mut member = Member::new(path, b'0');
        member.data = data.as_ref().to_vec();
        self.member(&member)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let mut member = Member::new(path, b'2');
        member.link = target.as_ref().to_vec();
        self.member(&member)
    }

    /// Adds a hard link.
    #[must_use]
    pub fn hard(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let mut member = Member::new(path, b'1');
        member.link = target.as_ref().to_vec();
        self.member(&member)
    }

    /// Adds any entry, its PAX records first where it needs some.
    #[must_use]
    pub fn member(mut self, member: &Member) -> Self {
        let mut records = Vec::new();
        if member.path.len() > 100 {
            record(&mut records, "path", &member.path);
        }
        if member.link.len() > 100 {
            record(&mut records, "linkpath", &member.link);
        }
        let (sec, nsec) = member.mtime;
        if sec < 0 || nsec != 0 {
            record(&mut records, "mtime", decimal(sec, nsec).as_bytes());
        }
        for (name, value) in &member.xattrs {
            let key = format!("SCHILY.xattr.{}", String::from_utf8_lossy(name));
            record(&mut records, &key, value);
        }
        if !records.is_empty() {
            self.block(&Member { data: records, ..Member::new("pax", b'x') });
        }
        self.block(member);
        self
    }

    /// Adds bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn block(&mut self, member: &Member) {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8], room: usize| {
            let len = bytes.len().min(room);
            block[at..at + len].copy_from_slice(&bytes[..len]);
        };
        let octal = |number: u64, width: usize| format!("{number:0width$o}\0");
        put(0, &member.path, 100);
        put(100, octal(member.perm.into(), 7).as_bytes(), 8);
        put(108, octal(member.ids.0.into(), 7).as_bytes(), 8);
        put(116, octal(member.ids.1.into(), 7).as_bytes(), 8);
        put(124, octal(member.data.len() as u64, 11).as_bytes(), 12);
        put(136, octal(u64::try_from(member.mtime.0).unwrap_or(0), 11).as_bytes(), 12);
        put(148, b"        ", 8);
        put(156, &[member.flag], 1);
        put(157, &member.link, 100);
        put(257, b"ustar\x0000", 8);
        put(329, octal(member.device.0.into(), 7).as_bytes(), 8);
        put(337, octal(member.device.1.into(), 7).as_bytes(), 8);
        let sum: u64 = block.iter().copied().map(u64::from).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
        self.bytes.extend_from_slice(&member.data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// Seconds as PAX writes them: the fraction has the sign of the whole.
fn decimal(sec: i64, nsec: u32) -> String {
    if sec < 0 && nsec > 0 {
        format!("-{}.{:09}", -(sec + 1), 1_000_000_000 - nsec)
    } else {
        format!("{sec}.{nsec:09}")
    }
}

/// A PAX record: its length counts itself.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    let mut text = String::new();
    write!(text, "{len} {key}=").unwrap();
    records.extend_from_slice(text.as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}
