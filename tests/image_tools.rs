//! Images that umoci, skopeo and buildah write are read, and what is exported they read again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says that it cannot run"
)]

use std::fs;
use std::io::{Read as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

use plyfs::image::compression::{self, Compression};
use plyfs::image::config::Config;
use plyfs::image::digest::Digest;
use plyfs::image::export::{ExportImage, Format, export};
use plyfs::image::platform::Platform;
use plyfs::image::reference::Reference;
use plyfs::image::source::{Source, SourceImage, open};

/// A directory in which other tools work.
struct Bench(tempfile::TempDir);

/// Whether these programs are there. Says so if not.
fn have(programs: &[&str]) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let there = |name: &str| std::env::split_paths(&paths).any(|dir| dir.join(name).exists());
    let missing: Vec<_> = programs.iter().filter(|name| !there(name)).collect();
    if !missing.is_empty() {
        println!("skipped: needs {missing:?}");
    }
    missing.is_empty()
}

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a command in the directory and gives back what it printed.
    #[track_caller]
    fn run(&self, command: &str) -> String {
        let mut words = command.split_whitespace();
        let output = Command::new(words.next().unwrap())
            .args(words)
            .current_dir(self.0.path())
            .env("TMPDIR", self.0.path())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{command}: {error}{out}");
        out
    }

    fn skopeo(&self, command: &str) -> String {
        self.run(&format!("skopeo --insecure-policy {command}"))
    }

    /// A layout `umoci` of umoci's with an image `base` of three layers, the last of which removes
    /// something.
    fn umoci(&self) {
        let rootless = if rustix::process::geteuid().is_root() { "" } else { "--rootless" };
        self.run("umoci init --layout umoci");
        self.run("umoci new --image umoci:base");
        fs::create_dir_all(self.path("tree/dir")).unwrap();
        fs::write(self.path("tree/dir/file"), "one".repeat(10_000)).unwrap();
        fs::write(self.path("tree/gone"), "two").unwrap();
        self.run(&format!("umoci insert {rootless} --image umoci:base tree /tree"));
        self.run(&format!("umoci insert {rootless} --image umoci:base tree/dir /dir"));
        let remove = "umoci insert --whiteout --image umoci:base";
        self.run(&format!("{remove} {rootless} /tree/gone"));
        self.run("umoci config --image umoci:base --config.cmd /bin/x --config.env A=b");
    }

    fn open(&self, name: &str) -> Box<dyn Source> {
        open(&self.path(name), self.0.path()).unwrap()
    }

    /// The one image of a source, and its layers, all verified.
    #[track_caller]
    fn image(&self, name: &str) -> (SourceImage, Vec<Vec<u8>>) {
        let source = self.open(name);
        let mut images = source.images(&Platform::host()).unwrap();
        assert_eq!(images.len(), 1, "{name}");
        let image = images.remove(0);
        let layers = layers(source.as_ref(), &image);
        (image, layers)
    }
}

/// The archives of an image's layers, which have to be those that its config lists.
#[track_caller]
fn layers(source: &dyn Source, image: &SourceImage) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    assert_eq!(image.layers.len(), image.diff_ids.len());
    for (layer, id) in image.layers.iter().zip(&image.diff_ids) {
        let (_, mut decoder) = compression::decoder(source.layer(layer).unwrap()).unwrap();
        let mut bytes = Vec::new();
        decoder.read_to_end(&mut bytes).unwrap();
        assert_eq!(Digest::of(&bytes), *id);
        all.push(bytes);
    }
    all
}

#[test]
fn every_form_that_tools_write_is_read() {
    if !have(&["umoci", "skopeo"]) {
        return;
    }
    let bench = Bench::new();
    bench.umoci();
    let (first, contents) = bench.image("umoci");
    assert_eq!(first.names, ["base"]);
    assert_eq!(contents.len(), 3);
    let config = Config::parse(&first.config).unwrap();
    assert_eq!((config.cmd, config.env), (vec!["/bin/x".to_owned()], vec!["A=b".to_owned()]));
    for (to, file, names) in [
        ("oci:layout:some/name:1", "layout", ["some/name:1"].as_slice()),
        ("oci-archive:archive.tar:name:1", "archive.tar", &["name:1"]),
        ("oci-archive:nameless.tar", "nameless.tar", &[]),
        ("docker-archive:docker.tar:name:1", "docker.tar", &["docker.io/library/name:1"]),
        ("docker-archive:untagged.tar", "untagged.tar", &[]),
        ("oci:zstd:z --dest-compress-format zstd", "zstd", &["z"]),
    ] {
        bench.skopeo(&format!("copy oci:umoci:base {to}"));
        let (image, layers) = bench.image(file);
        let named = |names: &[String]| -> Vec<Reference> {
            names.iter().map(|name| Reference::from_source(name, "stem").unwrap()).collect()
        };
        let expected: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(named(&image.names), named(&expected), "{to}");
        assert_eq!(layers, contents, "{to}");
        if !to.starts_with("docker-") {
            assert_eq!(image.config, first.config, "{to}");
        }
    }
    bench.run("gzip --keep archive.tar");
    assert_eq!(bench.image("archive.tar.gz").1, contents);
}

#[test]
fn several_images_in_one_layout_are_read() {
    if !have(&["umoci", "skopeo"]) {
        return;
    }
    let bench = Bench::new();
    bench.umoci();
    bench.run("umoci tag --image umoci:base again");
    bench.run("umoci new --image umoci:empty");
    let source = bench.open("umoci");
    let mut images = source.images(&Platform::host()).unwrap();
    images.sort_by_key(|image| image.layers.len());
    let names: Vec<_> = images.iter().map(|image| image.names.clone()).collect();
    assert_eq!(names, [vec!["empty".to_owned()], vec!["base".to_owned(), "again".to_owned()]]);
    assert!(images[0].diff_ids.is_empty());
}

#[test]
fn what_is_exported_other_tools_read() {
    if !have(&["umoci", "skopeo"]) {
        return;
    }
    let bench = Bench::new();
    bench.umoci();
    let (image, contents) = bench.image("umoci");
    let names = ["test:1", "r.example/other:2"].map(|name| name.parse().unwrap()).to_vec();
    let all = [ExportImage { names, manifest: image.manifest, config: image.config.clone() }];
    let write = |_: usize, which: usize, out: &mut dyn Write| Ok(out.write_all(&contents[which])?);
    let count = contents.len();
    for (format, form) in [
        (Format::OciLayout, "oci"),
        (Format::OciArchive, "oci-archive"),
        (Format::DockerArchive, "docker-archive"),
    ] {
        for how in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let name = format!("{form}-{how}");
            export(&all, &write, how, format, &bench.path(&name)).unwrap();
            let (back, layers) = {
                let source = bench.open(&name);
                let image = source.images(&Platform::host()).unwrap().remove(0);
                let layers = layers(source.as_ref(), &image);
                (image, layers)
            };
            assert_eq!((&back.config, &layers), (&image.config, &contents), "{name}");
            let from = format!("{form}:{name}:test:1");
            let config = bench.skopeo(&format!("inspect --config --raw {from}"));
            assert_eq!(config.as_bytes(), image.config, "{name}");
            let manifest = bench.skopeo(&format!("inspect --raw {from}"));
            assert_eq!(manifest.matches("sha256:").count(), 1 + count, "{name}: {manifest}");
            // A copy verifies every digest.
            bench.skopeo(&format!("copy {from} oci:copied-{name}:copy"));
            assert_eq!(bench.image(&format!("copied-{name}")).1, contents, "{name}");
            let listed = bench.skopeo(&format!("inspect {form}:{name}:r.example/other:2"));
            assert!(listed.contains("\"Architecture\""), "{name}: {listed}");
        }
    }
    // Not zstd: umoci of Debian's stable release does not know it.
    for name in ["oci-none", "oci-gzip"] {
        unpacks(&bench, &format!("{name}:test:1"), &format!("bundle-{name}"));
    }
}

/// umoci unpacks the image of [`Bench::umoci`].
#[track_caller]
fn unpacks(bench: &Bench, image: &str, bundle: &str) {
    let rootless = if rustix::process::geteuid().is_root() { "" } else { "--rootless" };
    bench.run(&format!("umoci unpack {rootless} --image {image} {bundle}"));
    let root = bench.path(bundle).join("rootfs");
    assert_eq!(fs::read_to_string(root.join("dir/file")).unwrap(), "one".repeat(10_000));
    assert_eq!(fs::metadata(root.join("tree/dir/file")).unwrap().size(), 30_000);
    assert!(!root.join("tree/gone").exists());
}

#[test]
fn what_buildah_commits_is_read() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: buildah from scratch without a user namespace needs root");
        return;
    }
    if !have(&["buildah"]) {
        return;
    }
    let bench = Bench::new();
    let dir = bench.0.path().display();
    let buildah = |command: &str| {
        let store = format!("--root {dir}/store --runroot {dir}/run --storage-driver vfs");
        bench.run(&format!("buildah {store} {command}")).trim().to_owned()
    };
    fs::write(bench.path("file"), "content").unwrap();
    let container = buildah("from scratch");
    buildah(&format!("copy {container} file /file"));
    buildah(&format!("config --cmd /file --env A=b {container}"));
    for (to, file, names) in [
        ("oci:layout:made:1", "layout", ["made:1"].as_slice()),
        ("oci-archive:made.tar:made:1", "made.tar", &["made:1"]),
        ("docker-archive:docker.tar:made:1", "docker.tar", &["docker.io/library/made:1"]),
    ] {
        buildah(&format!("commit {container} {to}"));
        let (image, layers) = bench.image(file);
        assert_eq!((image.names.as_slice(), layers.len()), (&[names[0].to_owned()][..], 1), "{to}");
        assert_eq!(Config::parse(&image.config).unwrap().cmd, ["/file"]);
    }
}

/// A docker daemon of its own, which touches no network.
struct Docker(std::process::Child);

impl Docker {
    fn start(bench: &Bench) -> Self {
        let dir = bench.0.path().display();
        let places = format!(
            "--data-root={dir}/data --exec-root={dir}/exec --pidfile={dir}/pid \
             --host=unix://{dir}/docker.sock --storage-driver=vfs"
        );
        let log = fs::File::create(bench.path("log")).unwrap();
        let daemon = Command::new("dockerd")
            .args(places.split_whitespace())
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn()
            .unwrap();
        let this = Self(daemon);
        let begin = std::time::Instant::now();
        while !bench.path("docker.sock").exists() {
            let log = fs::read_to_string(bench.path("log")).unwrap();
            assert!(begin.elapsed().as_secs() < 60, "dockerd does not start: {log}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        this
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn docker_loads_what_is_exported_and_saves_it_again() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: dockerd needs root");
        return;
    }
    if !have(&["umoci", "dockerd", "docker"]) {
        return;
    }
    let bench = Bench::new();
    bench.umoci();
    let (image, contents) = bench.image("umoci");
    let names = ["test:1", "r.example/other:2"].map(|name| name.parse().unwrap()).to_vec();
    let all = [ExportImage { names, manifest: image.manifest, config: image.config.clone() }];
    let write = |_: usize, which: usize, out: &mut dyn Write| Ok(out.write_all(&contents[which])?);
    let dest = bench.path("docker.tar");
    export(&all, &write, Compression::None, Format::DockerArchive, &dest).unwrap();
    let docker = Docker::start(&bench);
    let client = format!("docker --host=unix://{}/docker.sock", bench.0.path().display());
    let said = bench.run(&format!("{client} load --input docker.tar"));
    assert!(said.contains("test:1") && said.contains("r.example/other:2"), "{said}");
    let id = bench.run(&format!("{client} image inspect --format {{{{.Id}}}} test:1"));
    assert_eq!(id.trim(), Digest::of(&image.config).to_string());
    // It verifies layers by their digests; what it writes is what it read.
    bench.run(&format!("{client} save --output back.tar test:1"));
    let (back, layers) = bench.image("back.tar");
    assert_eq!((back.config, layers), (image.config, contents));
    drop(docker);
}
