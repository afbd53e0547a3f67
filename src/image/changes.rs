//! What an upper layer changes, as the tar of an image layer.
//!
//! The archive says what is different at each path between the image below and the merged tree:
//!
//! * Everything that lies in the upper layer gets an entry; directories also if they are only there
//!   to hold something, so that every parent has its entry and an applier need not make up
//!   attributes (containerd and umoci do the same). The root gets one (`./`) only if its own
//!   attributes changed: containerd and docker never write it, and some appliers ignore it.
//! * A renamed directory (a redirect) comes with all that it shows. What the image below has at the
//!   new place is hidden by whiteouts, name by name.
//! * So is what an opaque directory hides: explicit whiteouts are what the image specification
//!   prefers, every applier takes them in any order, and one layer with both a `.wh..wh..opq` and
//!   a renamed directory's content would need an order.
//! * A name is never both an entry and a whiteout (containerd's overlay applier refuses that): an
//!   entry replaces what was there.
//! * Hard links are links inside the layer: never to a file below, which containerd cannot apply.
//!   If one name of a file with several is in the layer, all of its names in the merged tree are,
//!   also those that only the layers below hold; otherwise they would part.
//! * Whiteouts come before the other names of their directory; names in the order of their bytes.
//!
//! What no layer can hold: names that begin with `.wh.` (refused, with their path); sockets (left
//! out and counted; what they hide is whited out).

mod plan;

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use self::plan::{Item, Link, Source};
use super::tar::{Entry, Piece, What, Writer, shown};
use crate::attr::{Kind, Time};
use crate::errno::{Context, Errno, Error, Result};
use crate::layer::{Data, Layer, Seek, marks};

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries, whiteouts included.
    pub entries: u64,
    /// Whiteouts.
    pub whiteouts: u64,
    /// Bytes of files, holes not counted.
    pub bytes: u64,
    /// Sockets, which no archive can hold.
    pub sockets: u64,
}

/// Attributes that say something of the machine and not of the file: the label of its security
/// policy, and signatures over inode numbers.
const LOCAL: [&[u8]; 3] = [b"security.selinux", b"security.evm", b"system.nfs4_acl"];

/// The smallest hole that is worth a piece of its own.
const HOLE: u64 = 64 << 10;

/// The most pieces of one file. Their map has to stay below the 1 MiB that Go reads.
const PIECES: usize = 20_000;

/// Pieces begin and end at multiples of this: a whole number of tar's blocks.
const ALIGN: u64 = 4096;

/// What is copied at once.
const CHUNK: usize = 256 << 10;

/// Writes to `out` the layer that makes `lowers` (topmost first) into what they show below `upper`.
/// `index` is the directory of copied-up hard links that belongs to `upper`, if it has one.
/// The same layers give the same bytes.
///
/// # Errors
/// `EINVAL` for what no layer can hold, with its path; `EIO` for an upper layer that does not fit
/// `lowers`, and for files that change meanwhile; those of the layers and of `out`.
pub fn layer_tar(
    upper: &Arc<dyn Layer>,
    index: Option<&Arc<dyn Layer>>,
    lowers: &[Arc<dyn Layer>],
    out: &mut dyn Write,
) -> Result<Stats> {
    let plan = plan::make(upper, index, lowers)?;
    let mut emit = Emit {
        writer: Writer::new(out),
        links: HashMap::new(),
        buffer: vec![0; CHUNK],
        stats: Stats { sockets: plan.sockets, ..Stats::default() },
    };
    for item in plan.items.into_values() {
        emit.item(&item)?;
    }
    emit.writer.finish()?.flush()?;
    Ok(emit.stats)
}

struct Emit<'a> {
    writer: Writer<&'a mut dyn Write>,
    /// The first name of each file that may have several.
    links: HashMap<Link, Vec<u8>>,
    buffer: Vec<u8>,
    stats: Stats,
}

impl Emit<'_> {
    fn item(&mut self, item: &Item) -> Result<()> {
        self.stats.entries += 1;
        let Some(attr) = item.source.attr() else {
            self.stats.whiteouts += 1;
            return self.writer.start(&whiteout(&item.path), None);
        };
        let path = || format!("'{}'", shown(&item.path));
        let mut entry = Entry {
            path: item.path.clone(),
            what: What::Dir,
            perm: attr.perm,
            uid: attr.uid,
            gid: attr.gid,
            mtime: attr.mtime,
            xattrs: Vec::new(),
        };
        if let Some(link) = item.source.link() {
            if let Some(first) = self.links.get(&link) {
                entry.what = What::HardLink(first.clone());
                return self.writer.start(&entry, None);
            }
            self.links.insert(link, item.path.clone());
        }
        entry.xattrs = item.source.xattrs().context(path)?;
        entry.what = match attr.kind {
            Kind::File => return self.file(entry, &item.source),
            Kind::Dir => What::Dir,
            Kind::Symlink => What::Symlink(item.source.readlink().context(path)?),
            Kind::Fifo => What::Fifo,
            Kind::Char => What::Char(attr.rdev),
            Kind::Block => What::Block(attr.rdev),
            Kind::Socket => return Err(crate::bug!("a socket in the plan of an archive")),
        };
        self.writer.start(&entry, None)
    }

    fn file(&mut self, mut entry: Entry, source: &Source) -> Result<()> {
        let shown = shown(&entry.path);
        let path = || format!("'{shown}'");
        let data = source.open().context(path)?;
        let size = data.attr().context(path)?.size;
        entry.what = What::File(size);
        let pieces = pieces(&*data, size).context(path)?;
        self.writer.start(&entry, pieces.as_deref())?;
        for piece in pieces.unwrap_or_else(|| vec![Piece { offset: 0, len: size }]) {
            self.copy(&*data, piece, path)?;
        }
        Ok(())
    }

    fn copy(
        &mut self,
        data: &dyn Data,
        Piece { mut offset, mut len }: Piece,
        path: impl Fn() -> String,
    ) -> Result<()> {
        while len > 0 {
            let want = usize::try_from(len).unwrap_or(CHUNK).min(CHUNK);
            let room = self.buffer.get_mut(..want).unwrap_or_default();
            let got = data.read_at(room, offset).context(&path)?;
            if got == 0 {
                let why = format!("{}: it became shorter while it was read", path());
                return Err(Error::new(Errno::EIO, why));
            }
            self.writer.data(room.get(..got).unwrap_or_default())?;
            let got = got as u64;
            (offset, len) = (offset + got, len.saturating_sub(got));
            self.stats.bytes += got;
        }
        Ok(())
    }
}

/// The entry of a whiteout. Its path ends in `.wh.NAME` already.
fn whiteout(path: &[u8]) -> Entry {
    Entry {
        path: path.to_vec(),
        what: What::File(0),
        perm: 0,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Vec::new(),
    }
}

/// The attributes of an upper object that belong to the image.
fn xattrs(layer: &dyn Layer, id: crate::layer::Id) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut all = Vec::new();
    for stored in layer.listxattr(id)? {
        let Some(name) = marks::unescape(&stored).filter(|name| !LOCAL.contains(&name.as_slice()))
        else {
            continue;
        };
        if let Some(value) = layer.getxattr(id, &stored)? {
            all.push((name, value));
        }
    }
    all.sort();
    Ok(all)
}

/// Where the data of a file are, if it has holes that are worth it.
fn pieces(data: &dyn Data, size: u64) -> Result<Option<Vec<Piece>>> {
    let mut hole = HOLE;
    while size >= hole {
        let pieces = pieces_between(data, size, hole)?;
        let stored: u64 = pieces.iter().map(|piece| piece.len).sum();
        if stored == size {
            return Ok(None);
        }
        if pieces.len() <= PIECES {
            return Ok(Some(pieces));
        }
        hole = hole.saturating_mul(4);
    }
    Ok(None)
}

/// The pieces of data between holes of at least `hole` bytes; more than [`PIECES`] are not listed.
fn pieces_between(data: &dyn Data, size: u64, hole: u64) -> Result<Vec<Piece>> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut at = 0;
    while at < size && pieces.len() <= PIECES {
        let first = match data.seek(at, Seek::Data) {
            Ok(first) => first,
            Err(error) if error.errno() == Errno::ENXIO => break,
            Err(error) => return Err(error),
        };
        let end = data.seek(first, Seek::Hole)?;
        if first >= size {
            break;
        }
        if end <= first {
            return Err(Error::new(Errno::EIO, "its holes changed while it was read"));
        }
        let (start, end) = (first / ALIGN * ALIGN, end.next_multiple_of(ALIGN).min(size));
        match pieces.last_mut() {
            Some(last) if start < (last.offset + last.len).saturating_add(hole) => {
                last.len = end - last.offset;
            }
            None if start < hole => pieces.push(Piece { offset: 0, len: end }),
            _ => pieces.push(Piece { offset: start, len: end.saturating_sub(start) }),
        }
        at = end;
    }
    // A short hole at the end.
    if let Some(last) = pieces.last_mut()
        && size - (last.offset + last.len) < hole
    {
        last.len = size - last.offset;
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests;
