//! Which paths a layer has an entry for, and where each comes from.
//!
//! Directories of the merged tree are gone through one by one. One whose lower part is what the
//! image has at the same path can differ only in what the upper layer holds; of any other (new,
//! opaque, renamed) all names are told, and what the image has there besides is whited out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::super::tar::shown;
use crate::attr::{Attr, Kind};
use crate::errno::{Context, Errno, Error, Result};
use crate::layer::{Data, Held, Layer, Lookup, Marks, NlinkBase};
use crate::name::Name;
use crate::union::below::{Below, Object};

const WHITEOUT: &[u8] = b".wh.";

/// An entry to be.
pub(super) struct Item {
    pub(super) path: Vec<u8>,
    pub(super) source: Source,
}

/// Where an entry comes from.
pub(super) enum Source {
    /// Nowhere: a whiteout.
    Whiteout,
    /// The upper layer, or its index; the data of a metacopy file from below.
    Upper(Rc<Held>, Attr, Option<Rc<Object>>),
    /// The layers below.
    Lower(Rc<Object>),
}

/// What the names of one file have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Link {
    /// The inode number in the upper layer.
    Upper(u64),
    /// The inode number in the union of the layers below.
    Lower(u64),
}

impl Source {
    /// The attributes; `None` for a whiteout.
    pub(super) fn attr(&self) -> Option<&Attr> {
        match self {
            Self::Whiteout => None,
            Self::Upper(_, attr, _) => Some(attr),
            Self::Lower(object) => Some(&object.attr),
        }
    }

    /// What it has in common with its other names, if it may have any.
    pub(super) fn link(&self) -> Option<Link> {
        let attr = self.attr().filter(|attr| attr.kind != Kind::Dir && attr.nlink > 1)?;
        Some(match self {
            Self::Lower(_) => Link::Lower(attr.ino),
            _ => Link::Upper(attr.ino),
        })
    }

    /// The extended attributes that belong to the image, sorted.
    pub(super) fn xattrs(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        match self {
            Self::Whiteout => Ok(Vec::new()),
            Self::Upper(held, ..) => super::xattrs(&**held.layer(), held.id()),
            Self::Lower(object) => {
                let mut all = object.xattrs()?;
                all.retain(|(name, _)| !super::LOCAL.contains(&name.as_slice()));
                Ok(all)
            }
        }
    }

    pub(super) fn readlink(&self) -> Result<Vec<u8>> {
        match self {
            Self::Whiteout => Err(Errno::EINVAL.into()),
            Self::Upper(held, ..) => held.layer().readlink(held.id()),
            Self::Lower(object) => object.readlink(),
        }
    }

    pub(super) fn open(&self) -> Result<Arc<dyn Data>> {
        match self {
            Self::Whiteout => Err(Errno::EINVAL.into()),
            Self::Upper(_, _, Some(data)) => data.open(),
            Self::Upper(held, ..) => held.layer().open(held.id()),
            Self::Lower(object) => object.open(),
        }
    }
}

/// A directory of the merged tree.
struct Dir {
    path: Vec<u8>,
    /// What the upper layer has of it.
    upper: Option<Rc<Held>>,
    /// What the layers below contribute to it.
    from: Option<Rc<Object>>,
    /// The directory that the layers below show at its path.
    base: Option<Rc<Object>>,
}

impl Dir {
    /// Whether only the upper layer makes it different from what is at its path below.
    fn same(&self) -> bool {
        match (&self.from, &self.base) {
            (Some(from), Some(_)) => from.path == self.path,
            _ => false,
        }
    }

    fn child(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path, name)
    }

    /// Every name of which something may have to be said.
    fn names(&self) -> Result<BTreeSet<Vec<u8>>> {
        let mut names = BTreeSet::new();
        if let Some(upper) = &self.upper {
            upper.layer().readdir(upper.id(), &mut |item| {
                names.insert(item.name.as_bytes().to_vec());
                Ok(())
            })?;
        }
        if !self.same() {
            for lower in self.from.iter().chain(&self.base) {
                names.extend(lower.names()?);
            }
        }
        Ok(names)
    }

    /// Whether the upper layer holds neither an object nor a whiteout at a name.
    fn upper_lacks(&self, name: &[u8]) -> Result<bool> {
        let Some(upper) = &self.upper else { return Ok(true) };
        Ok(match upper.layer().lookup(upper.id(), Name::new(name)?)? {
            Lookup::Absent => true,
            Lookup::Whiteout(_) => false,
            Lookup::Found(entry) => {
                drop(Held::new(upper.layer().clone(), entry.id));
                false
            }
        })
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// All entries of a layer, in their order.
pub(super) struct Plan {
    pub(super) items: BTreeMap<Vec<u8>, Item>,
    pub(super) sockets: u64,
    upper: Arc<dyn Layer>,
    index: Option<Arc<dyn Layer>>,
    below: Option<Below>,
    pending: Vec<Dir>,
    /// Those that only the upper layer makes different.
    same: Vec<Dir>,
    /// How many names of lower files with several are told, and how many there are.
    lower_links: HashMap<Link, (u32, u32)>,
}

/// A key that sorts entries: parents before what they hold, whiteouts before the other names.
fn key(path: &[u8], whiteout: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(path.len() + 8);
    let mut parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        key.push(if whiteout && parts.peek().is_none() { 1 } else { 2 });
        key.extend_from_slice(part);
        // Before any byte that a longer name may go on with.
        key.push(0);
    }
    key
}

/// Finds out what the layer has to hold.
pub(super) fn make(
    upper: &Arc<dyn Layer>,
    index: Option<&Arc<dyn Layer>>,
    lowers: &[Arc<dyn Layer>],
) -> Result<Plan> {
    let mut plan = Plan {
        items: BTreeMap::new(),
        sockets: 0,
        upper: upper.clone(),
        index: index.cloned(),
        below: Below::new(lowers)?,
        pending: Vec::new(),
        same: Vec::new(),
        lower_links: HashMap::new(),
    };
    plan.root()?;
    while let Some(dir) = plan.pending.pop() {
        plan.dir(&dir)?;
        if dir.same() {
            plan.same.push(dir);
        }
    }
    if plan.names_are_missing()? {
        plan.other_names()?;
    }
    Ok(plan)
}

impl Plan {
    fn root(&mut self) -> Result<()> {
        let (attr, marks) = self.upper.root_entry()?;
        refuse_unknown(&marks)?;
        let base = self.below.as_ref().map(Below::root).transpose()?.map(Rc::new);
        let held = Rc::new(Held::new(self.upper.clone(), self.upper.root()));
        let source = Source::Upper(held.clone(), attr, None);
        let own = |attr: &Attr| (attr.perm, attr.uid, attr.gid, attr.mtime);
        let differs = match &base {
            None => true,
            Some(base) => {
                own(&base.attr) != own(&attr)
                    || Source::Lower(base.clone()).xattrs()? != source.xattrs()?
            }
        };
        if differs {
            self.items.insert(Vec::new(), Item { path: b".".to_vec(), source });
        }
        self.pending.push(Dir {
            path: Vec::new(),
            upper: Some(held),
            from: base.clone().filter(|_| !marks.opaque),
            base,
        });
        Ok(())
    }

    /// Tells of the names in one directory.
    fn dir(&mut self, dir: &Dir) -> Result<()> {
        for name in dir.names().context(|| format!("'{}'", shown(&dir.path)))? {
            let told = self.name(dir, &name);
            told.context(|| format!("'{}'", shown(&dir.child(&name))))?;
        }
        Ok(())
    }

    fn name(&mut self, dir: &Dir, bytes: &[u8]) -> Result<()> {
        let base = lookup(dir.base.as_ref(), bytes)?;
        let at_upper = match &dir.upper {
            Some(upper) => upper.layer().lookup(upper.id(), Name::new(bytes)?)?,
            None => Lookup::Absent,
        };
        match at_upper {
            Lookup::Found(entry) => {
                let held = Rc::new(Held::new(self.upper.clone(), entry.id));
                let marks = marks_of(&held, &entry.attr, entry.marks)?;
                return self.found(dir, bytes, (held, entry.attr, marks), base);
            }
            Lookup::Whiteout(_) => {}
            Lookup::Absent => {
                if let Some(object) = lookup(dir.from.as_ref(), bytes)? {
                    return self.lower(dir, bytes, object, base);
                }
            }
        }
        self.gone(dir, bytes, base.is_some());
        Ok(())
    }

    /// A name that shows nothing.
    fn gone(&mut self, dir: &Dir, name: &[u8], hides: bool) {
        if hides {
            let path = dir.child(&[WHITEOUT, name].concat());
            let key = key(&dir.child(name), true);
            self.items.insert(key, Item { path, source: Source::Whiteout });
        }
    }

    /// A name that the upper layer has.
    fn found(
        &mut self,
        dir: &Dir,
        name: &[u8],
        (held, attr, marks): (Rc<Held>, Attr, Marks),
        base: Option<Rc<Object>>,
    ) -> Result<()> {
        refuse_unknown(&marks)?;
        let is_dir = attr.kind == Kind::Dir;
        let wants = if is_dir { !marks.opaque } else { marks.metacopy };
        let mut under = None;
        if wants && let Some(below) = &self.below {
            let kind = if is_dir { Kind::Dir } else { Kind::File };
            let object = below.under(dir.from.as_deref(), name, &marks)?;
            under = object.filter(|object| object.attr.kind == kind).map(Rc::new);
        }
        if wants && under.is_none() && (marks.redirect.is_some() || marks.metacopy) {
            let text = "no layer below has what it was made from; is a layer missing?";
            return Err(Error::new(Errno::EIO, text));
        }
        let (under, data) = if is_dir { (under, None) } else { (None, under) };
        self.add(dir, name, Source::Upper(held.clone(), attr, data), base.is_some())?;
        if is_dir {
            self.enter(dir, name, Some(held), under, base);
        }
        Ok(())
    }

    /// A name that the layers below have at another path, or that must come out all the same.
    fn lower(
        &mut self,
        dir: &Dir,
        name: &[u8],
        object: Rc<Object>,
        base: Option<Rc<Object>>,
    ) -> Result<()> {
        if object.attr.kind == Kind::Dir {
            self.add(dir, name, Source::Lower(object.clone()), base.is_some())?;
            self.enter(dir, name, None, Some(object), base);
            return Ok(());
        }
        let source = match self.copy_of(&object)? {
            Some(copy) => copy,
            None => Source::Lower(object),
        };
        self.add(dir, name, source, base.is_some())
    }

    fn enter(
        &mut self,
        dir: &Dir,
        name: &[u8],
        upper: Option<Rc<Held>>,
        from: Option<Rc<Object>>,
        base: Option<Rc<Object>>,
    ) {
        let base = base.filter(|base| base.attr.kind == Kind::Dir);
        self.pending.push(Dir { path: dir.child(name), upper, from, base });
    }

    /// Adds an entry, if an archive can hold it.
    fn add(&mut self, dir: &Dir, name: &[u8], source: Source, hides: bool) -> Result<()> {
        if name.starts_with(WHITEOUT) {
            let text =
                "no image layer can hold a name that begins with '.wh.': rename or remove it";
            return Err(Error::new(Errno::EINVAL, text));
        }
        if source.attr().is_some_and(|attr| attr.kind == Kind::Socket) {
            self.sockets += 1;
            self.gone(dir, name, hides);
            return Ok(());
        }
        if let (Some(link @ Link::Lower(_)), Some(attr)) = (source.link(), source.attr()) {
            self.lower_links.entry(link).or_insert((0, attr.nlink)).0 += 1;
        }
        let path = dir.child(name);
        self.items.insert(key(&path, false), Item { path, source });
        Ok(())
    }

    /// The copy of a lower hard link that another of its names was copied up to.
    fn copy_of(&self, object: &Rc<Object>) -> Result<Option<Source>> {
        let Some(index) = self.index.as_ref().filter(|_| object.attr.nlink > 1) else {
            return Ok(None);
        };
        let name = object.index_name()?;
        let Lookup::Found(entry) = index.lookup(index.root(), name.as_name())? else {
            return Ok(None);
        };
        let held = Rc::new(Held::new(index.clone(), entry.id));
        let marks = marks_of(&held, &entry.attr, entry.marks)?;
        refuse_unknown(&marks)?;
        // What it is a copy of has the data that it lacks.
        let data = marks.metacopy.then(|| object.clone());
        // It has other names even if in the upper layer its only one is that in the index: a
        // removed name is enough for a copy.
        let attr = Attr { nlink: entry.attr.nlink.max(2), ..entry.attr };
        Ok(Some(Source::Upper(held, attr, data)))
    }

    /// Whether some name of a file that the layer holds may be in the layers below only.
    fn names_are_missing(&self) -> Result<bool> {
        if self.lower_links.values().any(|(told, all)| told < all) {
            return Ok(true);
        }
        let Some(index) = &self.index else { return Ok(false) };
        let mut names = Vec::new();
        index.readdir(index.root(), &mut |item| {
            names.push(item.name.to_buf());
            Ok(())
        })?;
        for name in names {
            let Lookup::Found(entry) = index.lookup(index.root(), name.as_name())? else {
                continue;
            };
            let held = Held::new(index.clone(), entry.id);
            let attr = &entry.attr;
            if attr.kind == Kind::Dir {
                continue;
            }
            let marks = marks_of(&held, attr, entry.marks)?;
            let all = marks.nlink.and_then(|nlink| {
                let base = match nlink.base {
                    NlinkBase::Upper => Some(attr.nlink),
                    NlinkBase::Lower => marks.lower_nlink,
                };
                base?.checked_add_signed(nlink.delta)
            });
            // One of the upper names is the one in the index.
            if all.is_none_or(|all| all >= attr.nlink) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes through what only the layers below hold, for more names of files that the layer has.
    fn other_names(&mut self) -> Result<()> {
        let mut pending = std::mem::take(&mut self.same);
        while let Some(dir) = pending.pop() {
            let Some(from) = &dir.from else { continue };
            for name in from.names()? {
                // What the upper layer has at the name, or whites out, was told of; a directory
                // among that has its own place in the list.
                if !dir.upper_lacks(&name)? {
                    continue;
                }
                let Some(object) = from.lookup(&name)?.map(Rc::new) else { continue };
                if object.attr.kind == Kind::Dir {
                    let (from, base) = (Some(object.clone()), Some(object));
                    pending.push(Dir { path: dir.child(&name), upper: None, from, base });
                    continue;
                }
                if let Some(source) = self.other_name(object)? {
                    self.add(&dir, &name, source, true)?;
                    self.parents(&dir.path)?;
                }
            }
        }
        Ok(())
    }

    /// What a name that only the layers below have is to come out as, if it is one of a file that
    /// the layer has under another name.
    fn other_name(&self, object: Rc<Object>) -> Result<Option<Source>> {
        if let Some(copy) = self.copy_of(&object)? {
            return Ok(Some(copy));
        }
        let source = Source::Lower(object);
        let known = source.link().is_some_and(|link| self.lower_links.contains_key(&link));
        Ok(known.then_some(source))
    }

    /// Adds the directories above a name that are not there yet: the layers below have them at the
    /// same path.
    fn parents(&mut self, path: &[u8]) -> Result<()> {
        let Some(below) = &self.below else { return Ok(()) };
        let mut at = Rc::new(below.root()?);
        let mut done = Vec::new();
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            done = join(&done, name);
            let Some(next) = lookup(Some(&at), name)? else { return Ok(()) };
            let item = || Item { path: done.clone(), source: Source::Lower(next.clone()) };
            self.items.entry(key(&done, false)).or_insert_with(item);
            at = next;
        }
        Ok(())
    }
}

/// What is at a name in a directory of the layers below.
fn lookup(dir: Option<&Rc<Object>>, name: &[u8]) -> Result<Option<Rc<Object>>> {
    Ok(dir.map(|dir| dir.lookup(name)).transpose()?.flatten().map(Rc::new))
}

/// All marks of an object: a lookup in a layer that is only read leaves out those of files that do
/// not look as if they had any.
fn marks_of(held: &Held, attr: &Attr, marks: Marks) -> Result<Marks> {
    if attr.kind == Kind::Dir { Ok(marks) } else { held.layer().marks(held.id()) }
}

/// A mark whose meaning is not known is never passed over.
fn refuse_unknown(marks: &Marks) -> Result<()> {
    match &marks.unknown {
        None => Ok(()),
        Some(mark) => {
            let text = format!("it carries {mark}, which this version cannot follow");
            Err(Error::new(Errno::EIO, text))
        }
    }
}
