//! Export: images out of the store, as their layers' tars are made again.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::layout::Layout;
use super::{Image, Store};
use crate::errno::{Context, Errno, Error, Result};
use crate::image::compression::Compression;
use crate::image::digest::ChainId;
use crate::image::export::{self, ExportImage, Exported, Format};
use crate::image::recipe;
use crate::image::reference::Reference;

impl Store {
    /// Writes images to `dest`, which must not exist yet. Whoever wants it to stop sets `stop`.
    ///
    /// # Errors
    /// `ENOENT` if a layer has gone, `EIO` if one is damaged; `EINTR` when stopped; those of
    /// [`export::export`].
    pub fn export(
        &self,
        images: &[Image],
        compression: Compression,
        format: Format,
        dest: &Path,
        stop: &AtomicBool,
    ) -> Result<Vec<Exported>> {
        let held = images.iter().map(|image| self.hold_image(image)).collect::<Result<Vec<_>>>()?;
        let described = images.iter().map(|image| {
            let names = image.names.iter().map(|name| name.parse::<Reference>());
            Ok(ExportImage {
                names: names.collect::<Result<_>>()?,
                manifest: image.manifest.clone(),
                config: image.config.clone(),
            })
        });
        let described = described.collect::<Result<Vec<_>>>()?;
        let layout = &self.layout;
        let layer = |image: usize, layer: usize, out: &mut dyn Write| {
            let found = images.get(image).and_then(|image| image.layers.get(layer));
            let none = || Error::new(Errno::EIO, "the image has fewer layers than its config");
            layer_tar(layout, found.ok_or_else(none)?.chain, &mut Stoppable { out, stop })
        };
        let written = export::export(&described, &layer, compression, format, dest);
        drop(held);
        match written {
            Err(_) if stop.load(Ordering::Relaxed) => {
                Err(Error::new(Errno::EINTR, "stopped before the end"))
            }
            written => written,
        }
    }
}

/// Writes the tar of the layer that completes a chain. Who wants to be sure of it compares its
/// digest.
///
/// # Errors
/// `EIO` for a layer that is damaged, naming the file; those of `out`.
fn layer_tar(layout: &Layout, chain: ChainId, out: &mut dyn Write) -> Result<()> {
    recipe::rebuild(&layout.tree(chain), out).context(|| format!("layer {chain}"))
}

/// Fails once it is to stop.
struct Stoppable<'a> {
    out: &'a mut dyn Write,
    stop: &'a AtomicBool,
}

impl Write for Stoppable<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        self.out.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
