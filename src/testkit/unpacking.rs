//! Any bytes as a layer's archive: the bodies of the fuzz targets of unpacking.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::archive::{Archive, Member};
use super::listing;
use crate::errno::Result;
use crate::image::recipe::rebuild;
use crate::image::tar::Limits;
use crate::image::unpack::whiteout::{Said, whiteout};
use crate::image::unpack::{Settled, Unpack};
use crate::layer::Layer;
use crate::layer::dir::DirLayer;

static GO_ON: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A directory with something beside the layer, removed on drop.
struct Home(PathBuf);

const SENTINEL: &[u8] = b"nobody writes here";

impl Home {
    fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("plyfs-unpacking-{}-{number}", std::process::id());
        let home = std::env::temp_dir().join(name);
        std::fs::create_dir(&home).unwrap();
        std::fs::create_dir(home.join("beside")).unwrap();
        std::fs::write(home.join("beside/sentinel"), SENTINEL).unwrap();
        Self(home)
    }

    fn layer(&self, name: &str) -> PathBuf {
        let dir = self.0.join(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    /// Nothing but the layers has changed.
    fn check(&self) {
        let beside = self.0.join("beside");
        let names: Vec<_> = std::fs::read_dir(&beside).unwrap().map(|name| name.unwrap()).collect();
        assert_eq!(names.len(), 1, "something was made outside of the layer: {names:?}");
        let sentinel = beside.join("sentinel");
        assert_eq!(std::fs::read(&sentinel).unwrap(), SENTINEL);
        let meta = std::fs::symlink_metadata(&sentinel).unwrap();
        assert!(meta.is_file() && meta.nlink() == 1 && meta.mode() & 0o7000 == 0);
        for name in std::fs::read_dir(&self.0).unwrap() {
            let name = name.unwrap().file_name().into_string().unwrap();
            assert!(name == "beside" || name.starts_with("layer-"), "{name} was made");
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Unpacks over `lowers`, as an import does. The last directory of the two is the layer's.
fn unpack(home: &Home, tar: &[u8], lowers: &[Arc<dyn Layer>]) -> Result<PathBuf> {
    let limits = Limits { entries: 1000, ..Limits::default() };
    let first = home.layer(&format!("layer-{}", lowers.len()));
    let job = Unpack { dir: &first, limits, stop: &GO_ON, progress: None };
    if job.unpack(&mut &*tar)?.settle(lowers, &GO_ON)? != Settled::Again {
        return Ok(first);
    }
    let second = home.layer(&format!("layer-{}-again", lowers.len()));
    let job = Unpack { dir: &second, ..job };
    let settled = job.unpack_over(&mut &*tar, lowers)?.settle(lowers, &GO_ON)?;
    assert_ne!(settled, Settled::Again, "a layer unpacked over others has to be so again");
    Ok(second)
}

/// The archive comes back, and the tree can be read.
fn check_layer(dir: &Path, tar: &[u8], lowers: &[Arc<dyn Layer>]) {
    let mut back = Vec::new();
    rebuild(dir, &mut back).unwrap();
    assert!(back == tar, "the archive that comes back is another one");
    let mut layers: Vec<Arc<dyn Layer>> = vec![DirLayer::open(&dir.join("root")).unwrap()];
    layers.extend(lowers.iter().map(Arc::clone));
    listing::of_layers(&layers);
}

/// What lies below.
fn below() -> Vec<u8> {
    Archive::new()
        .member(&Member::new("./", b'5').perm(0o700))
        .dir("a")
        .file("a/a", "lower")
        .hard("a/b", "a/a")
        .symlink("b", "a")
        .symlink("c", "../../beside")
        .finish()
}

/// Unpacks the bytes alone, and over a layer.
///
/// * Nothing is touched outside of the layer's directory.
/// * What was unpacked can be read, and gives back the same bytes.
/// * Layers below stay what they are.
pub fn check_tar(tar: &[u8]) {
    let home = Home::new();
    if let Ok(dir) = unpack(&home, tar, &[]) {
        check_layer(&dir, tar, &[]);
    }
    home.check();
    let home = Home::new();
    let dir = unpack(&home, &below(), &[]).unwrap();
    let lowers: Vec<Arc<dyn Layer>> = vec![DirLayer::open(&dir.join("root")).unwrap()];
    let before = listing::of_layers(&lowers);
    if let Ok(dir) = unpack(&home, tar, &lowers) {
        check_layer(&dir, tar, &lowers);
    }
    assert_eq!(listing::of_layers(&lowers), before, "a layer below has changed");
    home.check();
}

/// Makes an archive of the bytes, so that headers are right and paths meet, and checks that.
pub fn check_entries(bytes: &[u8]) {
    check_tar(&archive(bytes));
}

/// Three bytes are an entry.
fn archive(bytes: &[u8]) -> Vec<u8> {
    const NAMES: [&str; 16] = [
        "a",
        "b",
        "c",
        "a/a",
        "a/b",
        "b/a",
        "b/c",
        "c/sentinel",
        "./",
        "../beside/x",
        "a/../c/x",
        "a/b/c",
        "c/a",
        "/beside/sentinel",
        "l/.",
        "b/../b/b",
    ];
    const TARGETS: [&str; 8] =
        ["a", "../b", "/", "../../beside", "/c", "../../../beside/sentinel", "a/a", "c/../b"];
    let name = |byte: u8| NAMES[usize::from(byte % 16)];
    let target = |byte: u8| TARGETS[usize::from(byte % 8)];
    let mut archive = Archive::new();
    for entry in bytes.chunks_exact(3).take(64) {
        let (path, more) = (name(entry[1]), entry[2]);
        let (dir, last) = path.rsplit_once('/').unwrap_or((".", path));
        archive = match entry[0] % 8 {
            0 | 1 => archive.file(path, [more; 7]),
            2 => archive.member(&Member::new(path, b'5').perm(u32::from(more) << 3)),
            3 => archive.symlink(path, target(more)),
            4 => archive.hard(path, name(more)),
            5 => archive.file(format!("{dir}/.wh.{last}"), ""),
            6 => archive.file(format!("{dir}/.wh..wh..opq"), ""),
            _ if more & 1 == 0 => archive.member(&Member::new(path, b'3')),
            _ => archive.member(&Member::new(path, b'0').xattr("trusted.overlay.opaque", "y")),
        };
    }
    archive.finish()
}

/// Tells a name apart; what it hides can be a name itself.
pub fn check_name(bytes: &[u8]) {
    match whiteout(bytes) {
        Ok(Said::Plain(name)) => {
            assert_eq!(name.as_bytes(), bytes);
            assert!(!bytes.starts_with(b".wh."));
        }
        Ok(Said::Whiteout(name)) => assert_eq!([b".wh.", name.as_bytes()].concat(), bytes),
        Ok(Said::Opaque) => assert_eq!(bytes, b".wh..wh..opq"),
        Ok(Said::Ignored) => assert!(bytes.starts_with(b".wh..wh.")),
        Err(error) => {
            let named = !bytes.is_empty() && bytes.len() <= 255 && !bytes.contains(&b'/');
            let fine = named && !bytes.contains(&0) && !bytes.starts_with(b".");
            assert!(!fine, "{} is refused: {error}", bytes.escape_ascii());
        }
    }
}
