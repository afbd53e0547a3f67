//! The same layers, unpacked by plyfs and by umoci, give the same tree. Needs root and umoci.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a surprise must stop the test"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use plyfs::errno::Result;
use plyfs::image::digest::Digest;
use plyfs::image::recipe::rebuild;
use plyfs::image::tar::Limits;
use plyfs::image::unpack::{Settled, Unpack};
use plyfs::layer::Layer;
use plyfs::layer::dir::DirLayer;
use plyfs::testkit::archive::{Archive, Member};
use plyfs::testkit::listing;
use plyfs::testkit::run::difference;

static GO_ON: AtomicBool = AtomicBool::new(false);

/// Unpacks layers, lowest first, below `home`; returns the layers that show, topmost first, and
/// how many had to be unpacked twice.
fn ours(home: &Path, tars: &[Vec<u8>]) -> Result<(Vec<Arc<dyn Layer>>, usize)> {
    let mut layers: Vec<Arc<dyn Layer>> = Vec::new();
    let mut again = 0;
    for (number, tar) in tars.iter().enumerate() {
        let dir = home.join(format!("layer-{number}"));
        std::fs::create_dir(&dir).unwrap();
        let limits = Limits::default();
        let job = Unpack { dir: &dir, limits, stop: &GO_ON, progress: None };
        let unpacked = job.unpack(&mut tar.as_slice())?;
        let mut settled = unpacked.settle(&layers, &GO_ON)?;
        if settled == Settled::Again {
            again += 1;
            std::fs::remove_dir_all(&dir).unwrap();
            std::fs::create_dir(&dir).unwrap();
            let unpacked = job.unpack_over(&mut tar.as_slice(), &layers)?;
            settled = unpacked.settle(&layers, &GO_ON)?;
        }
        if settled == (Settled::Done { root_opaque: true }) {
            layers.clear();
        }
        let mut back = Vec::new();
        rebuild(&dir, &mut back).unwrap();
        assert!(&back == tar, "layer {number} comes back as another archive");
        layers.insert(0, DirLayer::open(&dir.join("root")).unwrap());
    }
    Ok((layers, again))
}

/// Unpacks layers with umoci below `home`; returns where the tree is.
fn umoci(home: &Path, tars: &[Vec<u8>]) -> std::result::Result<PathBuf, String> {
    let layout = home.join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8], kind: &str| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        let size = bytes.len();
        let kind = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({ "mediaType": kind, "digest": digest.to_string(), "size": size })
    };
    let layers: Vec<_> = tars.iter().map(|tar| put(tar, "layer.v1.tar")).collect();
    let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar).to_string()).collect();
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = put(config.to_string().as_bytes(), "config.v1+json");
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let mut manifest = put(manifest.to_string().as_bytes(), "manifest.v1+json");
    manifest["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "it" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let bundle = home.join("bundle");
    let image = format!("{}:it", layout.display());
    let done = Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle).output();
    let done = done.unwrap_or_else(|error| panic!("umoci must be installed: {error}"));
    if done.status.success() {
        Ok(bundle.join("rootfs"))
    } else {
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }
}

/// A listing less the numbers of names, and less the times of directories that are `touched`.
fn plain(tree: &str, touched: impl Fn(&str) -> bool) -> String {
    let line = |line: &str| {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.retain(|word| !word.starts_with('x'));
        if words[1] == "Dir" && touched(words[0]) {
            words[4] = "-";
        }
        words.join(" ") + "\n"
    };
    tree.lines().map(line).collect()
}

/// Compares the two; returns how many layers had to be unpacked twice.
fn compare(layers: Vec<Archive>) -> usize {
    compare_less(layers, &[])
}

/// Compares the two, less the numbers of names (in a union, those that another layer hides count),
/// and less the times of some directories: umoci has the time of the day on those that no layer
/// describes, on the ones around them, and on those that it takes something out of after their own
/// entry.
fn compare_less(layers: Vec<Archive>, touched: &[&str]) -> usize {
    let home = tempfile::tempdir().unwrap();
    let tars: Vec<_> = layers.into_iter().map(Archive::finish).collect();
    let (layers, again) = ours(home.path(), &tars).unwrap();
    let touched = |path: &str| path.contains("new-implied") || touched.contains(&path);
    let got = plain(&listing::of_layers(&layers), touched);
    let expected = plain(&listing::of_dir(&umoci(home.path(), &tars).unwrap()), touched);
    assert!(expected.lines().count() > 2, "umoci's tree is empty");
    let difference = difference(&expected, &got);
    assert!(difference.is_empty(), "umoci -, plyfs +\n{difference}");
    again
}

/// Something of every type.
fn base() -> Archive {
    Archive::new()
        .member(
            &Member::new("dir", b'5').perm(0o2775).ids(5, 6).mtime(1000, 1).xattr("user.d", "1"),
        )
        .file("dir/a", "the first file")
        .member(&Member::new("dir/old", b'0').mtime(-1_000_000, 500_000_000))
        .member(&Member::new("dir/suid", b'0').perm(0o6711).ids(1, 2).xattr("user.x", "a\nb=c\0d"))
        .hard("dir/b", "dir/a")
        .hard("dir/c", "./dir/../dir/a")
        .symlink("dir/link", "a")
        .hard("dir/link2", "dir/link")
        .symlink("to-dir", "dir")
        .symlink("to-root", "/")
        .symlink("out", "../../../../../..")
        .member(&Member::new("null", b'3').device(1, 3).perm(0o666))
        .member(&Member::new("disk", b'4').device(8, 1).perm(0o660).ids(0, 6))
        .member(&Member::new("pipe", b'6'))
        .member(&Member::new("trusted", b'0').xattr("trusted.t", "1"))
        .member(&Member::new("late/deep/er", b'5').perm(0o700))
        .member(&Member::new("late/deep", b'5').perm(0o711).mtime(3, 3))
        .member(&Member::new("late", b'5').perm(0o1777).mtime(4, 4))
        .file("full/one", "1")
        .dir("full")
        .file("full/two", "2")
        .dir("full/sub")
        .file("full/sub/three", "3")
        .dir("new-implied")
        .file(format!("{}/{}", "new-implied/".repeat(20), "n".repeat(255)), "x")
        .member(&Member::new("./", b'5').perm(0o751).mtime(77, 5))
}

fn capability() -> Member {
    let value = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    Member::new("cap", b'0').ids(3, 3).perm(0o755).xattr("security.capability", value)
}

#[test]
fn one_layer() {
    compare(vec![base().member(&capability())]);
}

#[test]
fn a_layer_without_a_root_entry() {
    compare(vec![base(), Archive::new().file("dir/new", "x"), Archive::new().dir("x")]);
}

#[test]
fn implied_directories_are_those_below() {
    let again = compare(vec![
        base(),
        Archive::new()
            .file("dir/new", "x")
            .file("late/deep/er/x", "y")
            .file("full/sub/y", "z")
            .file("new-implied/x/y/z", "x"),
    ]);
    assert_eq!(again, 0);
}

#[test]
fn whiteouts_in_any_order() {
    for opaque_first in [true, false] {
        let opaque = Archive::new().file("full/.wh..wh..opq", "");
        let content = |archive: Archive| archive.file("full/two", "new").dir("full/sub");
        let layer = if opaque_first {
            content(opaque)
        } else {
            content(Archive::new()).file("full/.wh..wh..opq", "")
        };
        let layers = vec![
            base(),
            layer
                .file("dir/.wh.a", "")
                .file("dir/.wh.missing", "")
                .file("nowhere/at/.wh.all", "")
                .file(".wh.null", "")
                .file(".wh.to-dir", "")
                .file("dir/c", "the file after its whiteout")
                .file("dir/.wh.c", ""),
        ];
        compare_less(layers, if opaque_first { &[] } else { &["/full/sub"] });
    }
}

#[test]
fn a_directory_after_its_whiteout_is_new() {
    for first in [true, false] {
        let layer = if first {
            Archive::new().file(".wh.full", "").dir("full").file("full/x", "x")
        } else {
            Archive::new().dir("full").file("full/x", "x").file(".wh.full", "")
        };
        let layer = layer.file("late/.wh.deep", "").file("late/deep", "now a file");
        compare_less(vec![base(), layer], if first { &[] } else { &["/full"] });
    }
}

#[test]
fn an_opaque_root() {
    compare(vec![base(), Archive::new().file("x", "x").file(".wh..wh..opq", "").dir("y")]);
}

#[test]
fn things_replace_things() {
    compare(vec![
        base(),
        Archive::new()
            .file("full", "a file for a directory")
            .dir("to-dir")
            .file("to-dir/x", "a directory for a link")
            .dir("dir/a")
            .symlink("late", "dir")
            .file("null", "a file for a device")
            .member(&Member::new("dir", b'5').perm(0o700).xattr("user.e", "2")),
        Archive::new().dir("full").file("full/x", "").symlink("full/one", "x"),
    ]);
}

#[test]
fn things_replace_things_within_a_layer() {
    compare(vec![
        base()
            .file("dir/a", "another file, not the one that b and c are")
            .file("dir/a", "and yet another")
            .file("full", "a file for a directory with things in it")
            .dir("full")
            .file("full/new", "n")
            .dir("to-dir")
            .member(&Member::new("dir", b'5').perm(0o755))
            .symlink("late", "full")
            .file("late/through", "t"),
    ]);
}

#[test]
fn paths_lead_through_links_inside() {
    let again = compare(vec![
        base(),
        Archive::new().symlink("own", "full/sub").file("own/x", "x").file("own/../y", "y"),
        Archive::new()
            .file("to-dir/through", "t")
            .file("to-root/full/r", "r")
            .file("out/full/o", "o")
            .file("to-dir/.wh.a", "")
            .member(&Member::new("to-dir/made", b'5').perm(0o750)),
    ]);
    assert_eq!(again, 1);
}

#[test]
fn names_stay_inside() {
    compare(vec![
        base(),
        Archive::new()
            .file("../../../up", "u")
            .file("/absolute", "a")
            .file("dir/../../full/../x", "x")
            .file("./dir/./dot", "d")
            .symlink("loop", "/../../dir")
            .file("loop/x", "x"),
    ]);
}

#[test]
fn hard_links_to_layers_below() {
    let again = compare(vec![
        base(),
        Archive::new()
            .hard("d", "dir/a")
            .hard("full/e", "/dir/../d")
            .hard("l", "dir/link")
            .hard("n", "null")
            .hard("s", "dir/suid"),
        Archive::new().file("dir/.wh.b", "").hard("f", "dir/c"),
    ]);
    assert_eq!(again, 0);
    let again = compare(vec![base(), Archive::new().hard("d", "to-dir/suid")]);
    assert_eq!(again, 1);
}

#[test]
fn a_hundred_and_twenty_layers() {
    let mut layers = vec![base()];
    for number in 1..120 {
        let gone = format!("full/.wh.{}", number - 1);
        layers.push(
            Archive::new()
                .file(format!("full/{number}"), format!("{number}"))
                .file(gone, "")
                .member(
                    &Member::new("late", b'5').perm(0o700 + number % 64).mtime(number.into(), 0),
                ),
        );
    }
    compare(layers);
}

/// Numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % most
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        (0..depth).map(|_| self.one(&["a", "b", "c"])).collect::<Vec<_>>().join("/")
    }

    /// A layer over `below` with entries of every kind among a few names, each one that plyfs
    /// takes. Whiteouts come first, since umoci lets those that come later be something else.
    fn layer(&mut self, below: &[Vec<u8>]) -> Vec<u8> {
        let mut archive = Archive::new();
        if below.is_empty() {
            archive = archive.dir("./").dir("a").dir("b/c").dir("b");
        } else {
            for _ in 0..self.below(3) {
                let path = self.path();
                let (dir, name) = path.rsplit_once('/').unwrap_or((".", &path));
                let name = if self.below(4) == 0 { ".wh..opq" } else { name };
                archive = archive.file(format!("{dir}/.wh.{name}"), "");
            }
        }
        for _ in 0..=self.below(7) {
            let more = self.entry(archive.clone());
            let mut tars = below.to_vec();
            tars.push(more.clone().finish());
            let home = tempfile::tempdir().unwrap();
            if ours(home.path(), &tars).is_ok() {
                archive = more;
            }
        }
        archive.finish()
    }

    fn entry(&mut self, archive: Archive) -> Archive {
        let path = self.path();
        let perm = [0o700, 0o755, 0o1777, 0o750][self.below(4)];
        match self.below(9) {
            0..4 => archive.file(&path, format!("{} {path}", self.below(1000))),
            4 | 5 => archive.member(&Member::new(&path, b'5').perm(perm).xattr("user.a", &path)),
            6 => {
                let targets = ["a", "../a", "/b", "../../c", "/", "b/c", "/c/../a", "/a/b"];
                archive.symlink(&path, self.one(&targets))
            }
            7 => archive.hard(&path, self.path()),
            _ => archive.member(&Member::new(&path, b'6').ids(1, 2)),
        }
    }
}

/// Compares random images; returns how many there were that both could unpack, and how many of
/// them needed a layer unpacked twice.
fn random_images(seeds: std::ops::Range<u64>) -> (usize, usize) {
    let (mut compared, mut twice) = (0, 0);
    for seed in seeds {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut tars = Vec::new();
        for _ in 0..3 {
            let layer = random.layer(&tars);
            tars.push(layer);
        }
        let home = tempfile::tempdir().unwrap();
        let got = ours(home.path(), &tars);
        let (expected, (layers, again)) = match (umoci(home.path(), &tars), got) {
            (Ok(expected), Ok(got)) => (expected, got),
            // Which archives are refused is for the tests by hand.
            (Err(error), _) => {
                println!("seed {seed}: umoci refuses it: {}", error.trim());
                continue;
            }
            (Ok(_), Err(error)) => panic!("seed {seed}: only umoci takes it: {error}"),
        };
        let expected = plain(&listing::of_dir(&expected), |_| true);
        let got = plain(&listing::of_layers(&layers), |_| true);
        let difference = difference(&expected, &got);
        assert!(difference.is_empty(), "seed {seed}: umoci -, plyfs +\n{difference}");
        compared += 1;
        twice += usize::from(again > 0);
    }
    (compared, twice)
}

#[test]
fn random_images_are_the_same() {
    let last = std::env::var("PLYFS_IMAGES").map_or(60, |count| count.parse().unwrap());
    let (compared, twice) = random_images(0..last);
    println!("{compared} of {last} images compared, {twice} with a layer unpacked twice");
    assert!(compared > 15 && twice > 0, "{compared} images compared, {twice} unpacked twice");
}
