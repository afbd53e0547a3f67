//! Export: images out of the store, as their layers' tars are made again.

use std::io::Write;
use std::path::Path;

use super::{Image, Store};
use crate::errno::{Context, Errno, Error, Result};
use crate::image::compression::Compression;
use crate::image::digest::ChainId;
use crate::image::export::{self, ExportImage, Exported, Format};
use crate::image::recipe;
use crate::image::reference::Reference;

impl Store {
    /// Writes images to `dest`, which must not exist yet.
    ///
    /// # Errors
    /// `ENOENT` if a layer has gone, `EIO` if one is damaged; those of [`export::export`].
    pub fn export(
        &self,
        images: &[Image],
        compression: Compression,
        format: Format,
        dest: &Path,
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
        let layer = |image: usize, layer: usize, out: &mut dyn Write| {
            let found = images.get(image).and_then(|image| image.layers.get(layer));
            let none = || Error::new(Errno::EIO, "the image has fewer layers than its config");
            self.layer_tar(found.ok_or_else(none)?.chain, out)
        };
        let written = export::export(&described, &layer, compression, format, dest);
        drop(held);
        written
    }

    /// Writes the tar of the layer that completes a chain. Who wants to be sure of it compares its
    /// digest.
    ///
    /// # Errors
    /// `EIO` for a layer that is damaged, naming the file; those of `out`.
    pub fn layer_tar(&self, chain: ChainId, out: &mut dyn Write) -> Result<()> {
        recipe::rebuild(&self.layout.tree(chain), out).context(|| format!("layer {chain}"))
    }
}
