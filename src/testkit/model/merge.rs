//! What a stack of raw layers shows, worked out from their descriptions: the tree that the model
//! begins with. Written apart from the union, on purpose: two readings of the same rules.

use std::collections::{BTreeMap, BTreeSet};

use super::{Inode, Model, ROOT, inode};
use crate::attr::Kind;
use crate::testkit::place::Place;
use crate::testkit::tree::{Item, Thing, TreeSpec};

impl Model {
    /// What these raw layers, topmost first, show together.
    pub fn merged(layers: &[TreeSpec]) -> Self {
        let mut model = Self::new();
        let mut links = BTreeMap::new();
        let roots = layers.iter().enumerate().map(|(n, spec)| (n, spec, Place::root()));
        let roots: Vec<_> = roots.collect();
        model.merge(ROOT, &roots, &mut links);
        for ((layer, place), ino) in links {
            let all = layers[layer].items.values();
            let all = 1 + all.filter(|item| item.what == Thing::Hardlink(place.clone())).count();
            let inode = model.at_mut(ino);
            inode.hidden = all as u32 - inode.names;
        }
        model
    }

    fn merge(
        &mut self,
        into: u64,
        parts: &[(usize, &TreeSpec, Place)],
        links: &mut BTreeMap<(usize, Place), u64>,
    ) {
        let mut names = BTreeSet::new();
        for (_, spec, dir) in parts {
            let all = spec.items.keys().filter_map(Place::split);
            names.extend(all.filter(|(parent, _)| parent == dir).map(|(_, name)| name.to_vec()));
        }
        for name in names {
            let mut dirs: Vec<(usize, &TreeSpec, Place)> = Vec::new();
            let mut found = None;
            for &(layer, spec, ref dir) in parts {
                let place = dir.join(&name);
                let beside = spec.beside.contains(&place);
                let Some(item) = spec.items.get(&place) else {
                    if beside {
                        break;
                    }
                    continue;
                };
                let is_dir = item.what == Thing::Dir;
                if item.what == Thing::Whiteout || (!is_dir && found.is_some()) {
                    break;
                }
                found = found.or(Some((layer, spec, place.clone())));
                if !is_dir {
                    break;
                }
                assert!(item.redirect.is_none(), "merging a redirect is not the model's business");
                dirs.push((layer, spec, place));
                if item.opaque || beside {
                    break;
                }
            }
            let Some((layer, spec, place)) = found else { continue };
            let ino = self.merge_item((layer, spec), &place, links);
            self.at_mut(into).entries.insert(name, ino);
            self.at_mut(ino).names += 1;
            if !dirs.is_empty() {
                self.merge(ino, &dirs, links);
            }
        }
    }

    fn merge_item(
        &mut self,
        (layer, spec): (usize, &TreeSpec),
        place: &Place,
        links: &mut BTreeMap<(usize, Place), u64>,
    ) -> u64 {
        let item = &spec.items[place];
        let of = match &item.what {
            Thing::Hardlink(of) => of,
            Thing::File(_) => place,
            _ => return self.add(item.inode()),
        };
        let key = (layer, of.clone());
        if let Some(ino) = links.get(&key) {
            return *ino;
        }
        let ino = self.add(spec.items[of].inode());
        links.insert(key, ino);
        ino
    }
}

impl Item {
    fn inode(&self) -> Inode {
        let (kind, content, rdev) = match &self.what {
            Thing::Dir => (Kind::Dir, Vec::new(), 0),
            Thing::File(content) => (Kind::File, content.clone(), 0),
            Thing::Symlink(target) => (Kind::Symlink, target.clone(), 0),
            Thing::Node(kind, rdev) => (*kind, Vec::new(), *rdev),
            Thing::Hardlink(_) | Thing::Whiteout => unreachable!("shows another's inode, or none"),
        };
        let perm = if kind == Kind::Symlink { 0o777 } else { self.perm };
        let xattrs = self.xattrs.iter().cloned().collect();
        let base = inode(kind, perm, self.uid, self.gid);
        Inode { content, rdev, xattrs, mtime: Some(0), ..base }
    }
}
