//! Archives, and the trees that become of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tempfile::TempDir;

use super::{Settled, Unpack, Unpacked};
use crate::errno::{Errno, Result};
use crate::image::recipe::rebuild;
use crate::image::tar::Limits;
use crate::layer::Layer;
use crate::layer::dir::DirLayer;
use crate::testkit::archive::{Archive, Member};
use crate::testkit::listing;

static GO_ON: AtomicBool = AtomicBool::new(false);

fn job(dir: &Path) -> Unpack<'_> {
    Unpack { dir, limits: Limits::default(), stop: &GO_ON, progress: None }
}

fn unpack(dir: &Path, tar: &[u8]) -> Result<Unpacked> {
    job(dir).unpack(&mut &*tar)
}

/// A stack of layers under construction, lowest first.
struct Stack {
    dirs: Vec<TempDir>,
    /// Topmost first.
    layers: Vec<Arc<dyn Layer>>,
    /// How many layers had to be unpacked again.
    again: usize,
}

impl Stack {
    fn new() -> Self {
        Self { dirs: Vec::new(), layers: Vec::new(), again: 0 }
    }

    fn add(&mut self, archive: Archive) -> Result<()> {
        let tar = archive.finish();
        let mut dir = tempfile::tempdir().unwrap();
        let mut settled = unpack(dir.path(), &tar)?.settle(&self.layers, &GO_ON)?;
        if settled == Settled::Again {
            self.again += 1;
            dir = tempfile::tempdir().unwrap();
            let unpacked = job(dir.path()).unpack_over(&mut &*tar, &self.layers)?;
            settled = unpacked.settle(&self.layers, &GO_ON)?;
        }
        let mut back = Vec::new();
        rebuild(dir.path(), &mut back).unwrap();
        assert!(back == tar, "the archive that comes back is another one");
        match settled {
            Settled::Done { root_opaque: true } => self.layers.clear(),
            Settled::Done { root_opaque: false } => {}
            Settled::Again => panic!("a layer unpacked over others has to be so again"),
        }
        self.layers.insert(0, DirLayer::open(&dir.path().join("root")).unwrap());
        self.dirs.push(dir);
        Ok(())
    }

    fn with(mut self, archive: Archive) -> Self {
        self.add(archive).unwrap();
        self
    }

    fn refused(mut self, archive: Archive) -> String {
        self.add(archive).unwrap_err().to_string()
    }

    /// The tree, less its root's line.
    fn tree(&self) -> Vec<String> {
        listing::of_layers(&self.layers).lines().skip(1).map(str::to_owned).collect()
    }

    fn paths(&self) -> String {
        let path = |line: &String| line.split(' ').next().unwrap().to_owned();
        self.tree().iter().map(path).collect::<Vec<_>>().join(" ")
    }
}

fn one(archive: Archive) -> Stack {
    Stack::new().with(archive)
}

#[test]
fn entries_come_out_as_they_are() {
    let stack = one(Archive::new()
        .dir("./")
        .add(&Member::new("d", b'5').perm(0o3770).ids(3, 4).mtime(-5, 7))
        .file("d/f", "content")
        .add(&Member::new("d/suid", b'0').perm(0o4755).ids(7, 8).xattr("user.a", b"x\ny"))
        .symlink("d/l", "../../..")
        .hard("d/h", "d/f")
        .hard("d/m", "d/l")
        .add(&Member::new("d/c", b'3').device(1, 3).perm(0o666))
        .add(&Member::new("d/zero", b'3').ids(1, 1))
        .add(&Member::new("d/b", b'4').device(7, 300))
        .add(&Member::new("d/p", b'6').mtime(5, 999_999_999)));
    let hash = "cbf29ce484222325";
    let expected = [
        "/d Dir 3770 3:4 -5.000000007".to_owned(),
        format!("/d/b Block 0644 0:0 1000000000.000000000 x1 =d/b 10072c 0 {hash}"),
        format!("/d/c Char 0666 0:0 1000000000.000000000 x1 =d/c 103 0 {hash}"),
        "/d/f File 0644 0:0 1000000000.000000000 x2 =d/f 0 7 420c75b526b35282".to_owned(),
        "/d/h File 0644 0:0 1000000000.000000000 x2 =d/f 0 7 420c75b526b35282".to_owned(),
        "/d/l Symlink 0777 0:0 1000000000.000000000 x2 =d/l 0 8 4d3355ff90ea1c2f".to_owned(),
        "/d/m Symlink 0777 0:0 1000000000.000000000 x2 =d/l 0 8 4d3355ff90ea1c2f".to_owned(),
        format!("/d/p Fifo 0644 0:0 5.999999999 x1 =d/p 0 0 {hash}"),
        format!("/d/suid File 4755 7:8 1000000000.000000000 x1 =d/suid 0 0 {hash} user.a=x\\ny"),
        format!("/d/zero Char 0644 1:1 1000000000.000000000 x1 =d/zero 0 0 {hash}"),
    ];
    assert_eq!(stack.tree(), expected);
}
