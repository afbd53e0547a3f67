//! A layer that lets a test in before each call: to wait, to fail, to panic.

use std::fmt;
use std::sync::Arc;

use crate::attr::{Attr, StatFs};
use crate::errno::Result;
use crate::layer::pass_on::pass_on;
use crate::layer::{Data, DirItem, Id, Layer, Lookup, Marks};
use crate::name::Name;

/// What is about to be called.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// A lookup of this name.
    Lookup(Name<'a>),
    /// A listing.
    Readdir,
    /// The opening of a file.
    Open,
    /// Anything else.
    Other,
}

/// Wraps a layer. An error of the hook is the call's.
pub struct HookLayer<F> {
    inner: Arc<dyn Layer>,
    hook: F,
}

impl<F: Fn(Call<'_>) -> Result<()> + Send + Sync> HookLayer<F> {
    /// Calls `hook` before every call of `inner`, but for forget.
    pub fn new(inner: Arc<dyn Layer>, hook: F) -> Arc<Self> {
        Arc::new(Self { inner, hook })
    }

    fn step(&self) -> Result<()> {
        (self.hook)(Call::Other)
    }
}

impl<F> fmt::Debug for HookLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookLayer").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<F: Fn(Call<'_>) -> Result<()> + Send + Sync> Layer for HookLayer<F> {
    pass_on! { root root_entry forget fs ino_of statfs }
    pass_on! { after step; attr marks readlink getxattr listxattr handle }

    fn lookup(&self, dir: Id, name: Name<'_>) -> Result<Lookup> {
        (self.hook)(Call::Lookup(name))?;
        self.inner.lookup(dir, name)
    }

    fn readdir(&self, dir: Id, each: &mut dyn FnMut(DirItem<'_>) -> Result<()>) -> Result<()> {
        (self.hook)(Call::Readdir)?;
        self.inner.readdir(dir, each)
    }

    fn open(&self, id: Id) -> Result<Arc<dyn Data>> {
        (self.hook)(Call::Open)?;
        self.inner.open(id)
    }
}
