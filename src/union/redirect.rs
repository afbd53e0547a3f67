//! Where the lower part of a renamed directory lies.

use crate::errno::Result;
use crate::layer::{Id, Mark};
use crate::name::Name;

use super::descend::{Below, starts};
use super::node::Node;
use super::{NodeId, Union};

impl Union {
    /// The path of a directory in the union of the lower layers, with its leading slash: what a
    /// redirect to it says.
    fn lower_path(&self, node: &Node) -> Result<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut next = {
            let state = node.state()?;
            step(&state)
        };
        loop {
            match next {
                Step::Root => break,
                Step::From(path) => {
                    parts.push(path);
                    break;
                }
                Step::Up(name, parent) => {
                    parts.push(name);
                    next = step(&*parent.state()?);
                }
            }
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            if !part.starts_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        Ok(path)
    }

    /// Marks the upper directory of `node`, about to be renamed to `name` in `parent`, so that it
    /// goes on showing what it shows and nothing else. Changes nothing that is visible now.
    pub(super) fn settle_dir(
        &self,
        node: &Node,
        id: Id,
        parent: &Node,
        name: Name<'_>,
    ) -> Result<()> {
        let upper = self.writable()?;
        let (merged, redirect) = {
            let state = node.state()?;
            let redirect = state.ext.as_ref().and_then(|ext| ext.redirect.clone());
            (!state.lowers().is_empty(), redirect)
        };
        if merged {
            let path = self.lower_path(node)?;
            if redirect.as_deref() != Some(&path) {
                upper.set_mark(id, &Mark::Redirect(&path))?;
                node.state()?.ext().redirect = Some(path.into_boxed_slice());
            }
            return Ok(());
        }
        // Even if it is opaque already: it may be so by a whiteout beside it, which stays behind.
        let lowers = parent.state()?.lowers.clone();
        let start = starts(lowers.as_deref().unwrap_or_default());
        let mut found = Vec::new();
        if self.descend(&start, name, Below::Nothing, &mut found)?.is_some() {
            upper.set_mark(id, &Mark::Opaque)?;
            node.state()?.opaque = true;
        }
        Ok(())
    }

    /// Whether `node` is `dir` or one of its ancestors.
    pub(super) fn is_ancestor(&self, node: NodeId, dir: &Node) -> Result<bool> {
        if dir.id == node {
            return Ok(true);
        }
        let mut place = dir.place()?;
        while let Some(at) = place {
            if at.parent.id == node {
                return Ok(true);
            }
            place = at.parent.place()?;
        }
        Ok(false)
    }
}

enum Step {
    Root,
    /// The directory carries a redirect of its own: an absolute path.
    From(Vec<u8>),
    Up(Vec<u8>, std::sync::Arc<Node>),
}

fn step(state: &super::node::State) -> Step {
    let redirect = state.ext.as_ref().and_then(|ext| ext.redirect.as_deref());
    match (redirect, &state.place) {
        (Some(path), _) if path.starts_with(b"/") => Step::From(path.to_vec()),
        (_, None) => Step::Root,
        (redirect, Some(place)) => {
            let name = redirect.unwrap_or(place.name.as_bytes()).to_vec();
            Step::Up(name, std::sync::Arc::clone(&place.parent))
        }
    }
}
