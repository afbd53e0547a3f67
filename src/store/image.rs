//! Images: list, resolve, name, remove.

use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Lock, Store, db, lock, reserve};
use crate::errno::{Context, Errno, Error, Result};
use crate::image::digest::{ChainId, DiffId, Digest};
use crate::image::reference::Reference;

/// One image, with all that is needed to use it or to give it back.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its config.
    pub id: Digest,
    /// Its names, sorted. An image may have none.
    pub names: Vec<String>,
    /// The manifest that it came with, byte for byte, if its source had one.
    pub manifest: Option<Vec<u8>>,
    /// The config, byte for byte.
    pub config: Vec<u8>,
    /// Its layers, lowest first.
    pub layers: Vec<LayerInfo>,
    /// When it came into the store, in seconds since 1970.
    pub imported: i64,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// It and all below it.
    pub chain: ChainId,
    /// The digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// The bytes of its uncompressed tar.
    pub size: u64,
    /// Nothing of the layers below shows.
    pub opaque: bool,
    /// The digest of its tree less the contents of files.
    pub(super) census: Digest,
    /// A check found it bad; importing an image that has it heals it.
    pub damaged: bool,
}

/// One image, as a list shows it.
#[derive(Clone, Debug)]
pub struct ImageInfo {
    /// The digest of its config.
    pub id: Digest,
    /// Its names, sorted.
    pub names: Vec<String>,
    /// When it was made, as its config has it (RFC 3339).
    pub created: Option<String>,
    /// When it came into the store, in seconds since 1970.
    pub imported: i64,
    /// The bytes of its layers' uncompressed tars, those included that other images share.
    pub size: u64,
    /// How many layers it has.
    pub layers: usize,
    /// The containers made of it, by name; what `plyfs run` throws away by itself included.
    pub containers: Vec<String>,
}

/// What became of an image that was asked to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Which image.
    pub id: Digest,
    /// The names that are gone.
    pub names: Vec<String>,
    /// Whether the image itself is gone: it keeps living under its other names.
    pub deleted: bool,
}

/// A row of an image: id, manifest, config, when it was imported.
const IMAGE: &str = "SELECT id, manifest, config, imported FROM images";

/// The layers of an image, lowest first. A database that a fault made cyclic does not hang it.
const LAYERS: &str = "
    WITH RECURSIVE stack (chain, depth) AS (
        SELECT top, 0 FROM images WHERE id = ?1 AND top IS NOT NULL
        UNION ALL
        SELECT layers.parent, depth + 1 FROM stack JOIN layers USING (chain)
        WHERE layers.parent IS NOT NULL AND depth < 4096
    )
    SELECT chain, diff, size, opaque, census, damaged FROM stack JOIN layers USING (chain)
    ORDER BY depth DESC";

impl Image {
    /// How messages call it: by its first name, else by the beginning of its id.
    pub fn label(&self) -> String {
        label(self.id, &self.names)
    }

    /// The chain of all its layers; `None` for an image without layers.
    pub fn top(&self) -> Option<ChainId> {
        self.layers.last().map(|layer| layer.chain)
    }
}

impl Store {
    /// All images, the newest import first.
    pub fn images(&self) -> Result<Vec<ImageInfo>> {
        let tx = self.db.read().unchecked_transaction().map_err(db::error)?;
        let ids: Vec<String> =
            column(&tx, "SELECT id FROM images WHERE ?1 ORDER BY imported DESC, id", "1")?;
        let mut images = Vec::new();
        for id in ids {
            let Some(image) = load(&tx, &id)? else { continue };
            images.push(ImageInfo {
                id: image.id,
                created: created(&image.config),
                imported: image.imported,
                size: image.layers.iter().map(|layer| layer.size).sum(),
                layers: image.layers.len(),
                containers: users(&tx, &id)?,
                names: image.names,
            });
        }
        Ok(images)
    }

    /// The image called so: by a name in any spelling ([`Reference`]), or by its id or the
    /// beginning of that (four digits at least).
    ///
    /// # Errors
    /// `ENOENT` if there is none; `EINVAL` if several ids begin so.
    pub fn resolve(&self, image: &str) -> Result<Image> {
        let tx = self.db.read().unchecked_transaction().map_err(db::error)?;
        let id = find(&tx, image)?;
        load(&tx, &id)?.ok_or_else(|| no_image(image))
    }

    /// Gives an image one more name. If another image has that name it loses it.
    ///
    /// # Errors
    /// `EINVAL` for what is no name.
    pub fn tag(&self, image: &str, name: &str) -> Result<()> {
        let name: Reference = name.parse()?;
        let tx = self.db.write()?;
        let id = find(&tx, image)?;
        set_name(&tx, &name, &id)?;
        db::commit(tx)
    }

    /// Takes a name from an image; with its last name, or named by its id, the image goes, and with
    /// it the layers that no other image has. `force` lets one go by its id that has several names.
    ///
    /// # Errors
    /// `EBUSY` if containers are made of it, naming them; `EINVAL` for an id of several names.
    pub fn remove_image(&self, image: &str, force: bool) -> Result<Removed> {
        let removed = reserve::with(&self.layout, || self.take_name(image, force))?;
        if removed.deleted {
            self.tidy_up()?;
        }
        Ok(removed)
    }

    /// Removes the rows of a name, or of an image.
    fn take_name(&self, image: &str, force: bool) -> Result<Removed> {
        let tx = self.db.write()?;
        let id = find(&tx, image)?;
        let names = names(&tx, &id)?;
        let name = image.parse::<Reference>().map(|name| name.to_string()).unwrap_or_default();
        let by_name = names.iter().find(|known| **known == name);
        let removed = match by_name {
            Some(name) if names.len() > 1 => {
                tx.execute("DELETE FROM names WHERE name = ?1", [name]).map_err(db::error)?;
                Removed { id: digest(&id)?, names: vec![name.clone()], deleted: false }
            }
            None if names.len() > 1 && !force => {
                let text = format!(
                    "image {image} has several names ({}); remove these, or use --force",
                    names.join(", ")
                );
                return Err(Error::new(Errno::EINVAL, text));
            }
            _ => delete(&tx, &id)?,
        };
        db::commit(tx)?;
        Ok(removed)
    }

    /// Removes the images that have no name and no container; with `all`, those with names too.
    pub fn prune_images(&self, all: bool) -> Result<Vec<Removed>> {
        let removed = reserve::with(&self.layout, || self.delete_unused(all))?;
        self.tidy_up()?;
        Ok(removed)
    }

    fn delete_unused(&self, all: bool) -> Result<Vec<Removed>> {
        let tx = self.db.write()?;
        let unused = "
            SELECT id FROM images
            WHERE id NOT IN (SELECT image FROM containers)
            AND (?1 = 'all' OR id NOT IN (SELECT image FROM names))";
        let ids = column(&tx, unused, if all { "all" } else { "" })?;
        let removed = ids.iter().map(|id| delete(&tx, id)).collect::<Result<Vec<_>>>()?;
        db::commit(tx)?;
        Ok(removed)
    }

    /// The directories of an image's layers, topmost first, those left out that an opaque root
    /// hides.
    pub fn lowers(&self, image: &Image) -> Vec<PathBuf> {
        let mut lowers = Vec::new();
        for layer in image.layers.iter().rev() {
            lowers.push(self.layout.tree_root(layer.chain));
            if layer.opaque {
                break;
            }
        }
        lowers
    }

    /// Keeps an image's layers on disk while the lock lives, whatever becomes of the image.
    ///
    /// # Errors
    /// `ENOENT` if they have gone since.
    pub fn hold_image(&self, image: &Image) -> Result<Option<Lock>> {
        image.top().map(|top| self.hold_chain(top)).transpose()
    }

    /// Keeps a layer, and with it those below, on disk while the lock lives.
    pub(super) fn hold_chain(&self, chain: ChainId) -> Result<Lock> {
        let gone = || Error::new(Errno::ENOENT, format!("layer {chain} has been removed"));
        let held = match lock::wait_lock(&self.layout.tree(chain), false) {
            Err(error) if error.errno() == Errno::ENOENT => return Err(gone()),
            held => held?,
        };
        // It may have gone between the look into the database and the lock.
        if !exists(self.db.read(), chain)? {
            return Err(gone());
        }
        Ok(Lock::new(held))
    }
}

/// Gives `name` to the image `id`, whoever had it.
pub(super) fn set_name(tx: &Connection, name: &Reference, id: &str) -> Result<()> {
    let sql = "INSERT INTO names (name, image) VALUES (?1, ?2)
               ON CONFLICT (name) DO UPDATE SET image = excluded.image";
    tx.execute(sql, params![name.to_string(), id]).map_err(db::error)?;
    Ok(())
}

/// Whether there is a row for a layer.
pub(super) fn exists(db: &Connection, chain: ChainId) -> Result<bool> {
    let sql = "SELECT 1 FROM layers WHERE chain = ?1";
    let row = db.query_row(sql, [chain.0.hex()], |_| Ok(())).optional().map_err(db::error)?;
    Ok(row.is_some())
}

/// Removes the rows of an image that no container is made of; its layers' stay.
pub(super) fn delete(tx: &Connection, id: &str) -> Result<Removed> {
    let names = names(tx, id)?;
    let digest = digest(id)?;
    let users = users(tx, id)?;
    if !users.is_empty() {
        let (containers, them) = match users.as_slice() {
            [_] => ("container", "it"),
            _ => ("containers", "them"),
        };
        let text = format!(
            "image {} is used by {containers} {}; remove {them} first (plyfs rm)",
            label(digest, &names),
            users.join(", "),
        );
        return Err(Error::new(Errno::EBUSY, text));
    }
    tx.execute("DELETE FROM names WHERE image = ?1", [id]).map_err(db::error)?;
    tx.execute("DELETE FROM images WHERE id = ?1", [id]).map_err(db::error)?;
    Ok(Removed { id: digest, names, deleted: true })
}

/// The id (64 digits) of the image called so.
pub(super) fn find(db: &Connection, image: &str) -> Result<String> {
    let named = "SELECT image FROM names WHERE name = ?1";
    if let Ok(name) = image.parse::<Reference>()
        && let Some(id) = column(db, named, &name.to_string())?.pop()
    {
        return Ok(id);
    }
    let digits = image.strip_prefix("sha256:").unwrap_or(image);
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() < 4 || !digits.bytes().all(hex) {
        return Err(no_image(image));
    }
    let ids = column(db, "SELECT id FROM images WHERE substr(id, 1, length(?1)) = ?1", digits)?;
    match ids.as_slice() {
        [] => Err(no_image(image)),
        [id] => Ok(id.clone()),
        several => {
            let several: Vec<_> = several.iter().filter_map(|id| id.get(..16)).collect();
            let text = format!("{image} may be any of {}: say more of it", several.join(", "));
            Err(Error::new(Errno::EINVAL, text))
        }
    }
}

fn no_image(image: &str) -> Error {
    let shown = image.chars().take(80).collect::<String>();
    Error::new(Errno::ENOENT, format!("there is no image {} in the store", shown.escape_debug()))
}

/// The image with this id.
pub(super) fn load(db: &Connection, id: &str) -> Result<Option<Image>> {
    type Columns = (String, Option<Vec<u8>>, Vec<u8>, i64);
    let columns = |row: &Row<'_>| -> rusqlite::Result<Columns> {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    };
    let row = db.query_row(&format!("{IMAGE} WHERE id = ?1"), [id], columns).optional();
    let Some((id, manifest, config, imported)) = row.map_err(db::error)? else { return Ok(None) };
    let (names, layers) = (names(db, &id)?, layers(db, &id)?);
    Ok(Some(Image { id: digest(&id)?, names, manifest, config, layers, imported }))
}

fn layers(db: &Connection, id: &str) -> Result<Vec<LayerInfo>> {
    type Columns = (String, String, i64, bool, String, bool);
    let mut query = db.prepare_cached(LAYERS).map_err(db::error)?;
    let rows = query
        .query_map([id], |row| -> rusqlite::Result<Columns> {
            let (chain, diff, size) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((chain, diff, size, row.get(3)?, row.get(4)?, row.get(5)?))
        })
        .map_err(db::error)?;
    rows.map(|row| {
        let (chain, diff, size, opaque, census, damaged) = row.map_err(db::error)?;
        let (chain, diff_id) = (ChainId(digest(&chain)?), digest(&diff)?);
        let census = digest(&census)?;
        let size = u64::try_from(size).unwrap_or(0);
        Ok(LayerInfo { chain, diff_id, size, opaque, census, damaged })
    })
    .collect()
}

/// The names of an image, sorted.
fn names(db: &Connection, id: &str) -> Result<Vec<String>> {
    column(db, "SELECT name FROM names WHERE image = ?1 ORDER BY name", id)
}

/// The names of the containers made of an image.
fn users(db: &Connection, id: &str) -> Result<Vec<String>> {
    column(db, "SELECT name FROM containers WHERE image = ?1 ORDER BY name", id)
}

/// All values of a column of text.
pub(super) fn column(db: &Connection, sql: &str, param: &str) -> Result<Vec<String>> {
    let mut query = db.prepare_cached(sql).map_err(db::error)?;
    let rows = query.query_map([param], |row| row.get(0)).map_err(db::error)?;
    rows.collect::<rusqlite::Result<_>>().map_err(db::error)
}

/// From the digits that the database keeps.
pub(super) fn digest(hex: &str) -> Result<Digest> {
    format!("sha256:{hex}").parse().context(|| "the database holds no digest where one must be")
}

fn label(id: Digest, names: &[String]) -> String {
    names.first().cloned().unwrap_or_else(|| id.hex().chars().take(12).collect())
}

/// When an image was made, as its config says.
fn created(config: &[u8]) -> Option<String> {
    let config: serde_json::Value = serde_json::from_slice(config).ok()?;
    Some(config.get("created")?.as_str()?.to_owned())
}
