//! The built program on a store of its own, on a small filesystem of its own: what it is asked to
//! do, what then shows, and that nothing else has changed.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use plyfs::store::Store;

use crate::samples::{bulk, create, layer, layout};

/// What the tests run on.
pub(crate) const FILESYSTEMS: [&str; 2] = ["ext4", "tmpfs"];
/// How large it is, in bytes.
const SIZE: u64 = 64 << 20;
/// How many files the container `box` has changed.
const CHANGED: usize = 150;

/// The store, in which there are the image `base` and the container `box` of it.
pub(crate) struct Stand {
    dir: tempfile::TempDir,
    pub(crate) fs: &'static str,
}

/// What somebody sees of the store: the names of images, and of containers that are to stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) images: Vec<String>,
    pub(crate) containers: Vec<String>,
}

/// Something that the program is asked to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) name: &'static str,
    /// What has to be there; done again after every attempt.
    pub(crate) prepare: fn(&Stand),
    /// The command, `IMAGE` standing for the image `new` as a file.
    pub(crate) command: &'static [&'static str],
    /// What shows before, and after, besides `base` and `box`.
    pub(crate) images: [&'static [&'static str]; 2],
    pub(crate) containers: [&'static [&'static str]; 2],
    /// It makes room, so it has to work without any.
    pub(crate) removes: bool,
}

const NOTHING: [&[&str]; 2] = [&[], &[]];
const SCRIPT: &str = "i=0; while [ $i -lt 40 ]; do echo $i >/data/$i; i=$((i+1)); done; rm /d0/1";

/// All that there is to do.
pub(crate) const WORKS: [Work; 8] = [
    Work {
        name: "image import",
        prepare: |stand| stand.without("new"),
        command: &["image", "import", "IMAGE", "--name", "new"],
        images: [&[], &["new:latest"]],
        containers: NOTHING,
        removes: false,
    },
    Work {
        name: "commit",
        prepare: |stand| stand.without("made"),
        command: &["commit", "box", "made"],
        images: [&[], &["made:latest"]],
        containers: NOTHING,
        removes: false,
    },
    Work {
        name: "rm",
        prepare: |stand| stand.container("other"),
        command: &["rm", "other"],
        images: NOTHING,
        containers: [&["other"], &[]],
        removes: true,
    },
    Work {
        name: "image rm",
        prepare: Stand::with_new,
        command: &["image", "rm", "new"],
        images: [&["new:latest"], &[]],
        containers: NOTHING,
        removes: true,
    },
    Work {
        name: "image prune",
        prepare: Stand::with_new,
        command: &["image", "prune", "--all"],
        images: [&["new:latest"], &[]],
        containers: NOTHING,
        removes: true,
    },
    Work {
        name: "gc",
        prepare: Stand::litter,
        command: &["gc"],
        images: NOTHING,
        containers: NOTHING,
        removes: true,
    },
    Work {
        name: "run",
        prepare: |_| {},
        command: &["run", "base", "--", "/bin/busybox", "sh", "-ec", SCRIPT],
        images: NOTHING,
        containers: NOTHING,
        removes: false,
    },
    Work {
        name: "run --keep",
        prepare: |stand| stand.without_container("kept"),
        command: &["run", "base", "--keep", "kept", "--", "/bin/busybox", "sh", "-ec", SCRIPT],
        images: NOTHING,
        containers: [&[], &["kept"]],
        removes: false,
    },
];

/// The work of that name.
pub(crate) fn work(name: &str) -> &'static Work {
    WORKS.iter().find(|work| work.name == name).unwrap()
}

impl Work {
    /// What shows before it is done, or afterwards.
    pub(crate) fn shown(&self, done: bool) -> Shown {
        let [images, containers] =
            [self.images, self.containers].map(|both| both[usize::from(done)]);
        let all = |always: &str, more: &[&str]| {
            let mut all: Vec<_> =
                [&[always], more].concat().into_iter().map(str::to_owned).collect();
            all.sort();
            all
        };
        Shown { images: all("base:latest", images), containers: all("box", containers) }
    }
}

impl Stand {
    pub(crate) fn new(fs: &'static str) -> Self {
        let stand = Self { dir: tempfile::tempdir().unwrap(), fs };
        fs::create_dir(stand.small()).unwrap();
        let small = stand.small();
        if fs == "tmpfs" {
            let options = format!("size={SIZE}");
            stand.run("mount", &["-t", "tmpfs", "-o", &options, "none", text(&small)]);
        } else {
            let image = stand.dir.path().join("device");
            fs::File::create(&image).unwrap().set_len(SIZE).unwrap();
            stand.run(&format!("mkfs.{fs}"), &["-q", "-m", "0", text(&image)]);
            stand.run("mount", &["-o", "loop", text(&image), text(&small)]);
        }
        let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
        let base = layer(&[
            ("bin", None),
            ("bin/busybox", Some(&busybox)),
            ("data", None),
            ("etc", None),
            ("tmp", None),
        ]);
        let base = layout(&stand.dir.path().join("base"), "base", &[base, bulk("d0", 60, 3000)]);
        let layers: Vec<_> = (0..4).map(|n| bulk(&format!("n{n}"), 80, 4000)).collect();
        layout(&stand.dir.path().join("new"), "new", &layers);
        stand.ok(&["image", "import", text(&base), "--name", "base"]);
        stand.container("box");
        stand
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
    }

    /// Where the small filesystem is mounted.
    pub(crate) fn small(&self) -> PathBuf {
        self.dir.path().join("small")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.small().join("store")
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(Some(&self.root())).unwrap()
    }

    /// To run the program; `IMAGE` stands for the image `new`.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let new = self.dir.path().join("new");
        let given = arguments.iter().map(|&word| if word == "IMAGE" { text(&new) } else { word });
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
        command.env("PLYFS_ROOT", self.root()).args(given).stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    pub(crate) fn plyfs(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.plyfs(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: plyfs {arguments:?}: {said}", self.fs);
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `ls` and `image ls` show; not the containers of `run`, which go by themselves.
    pub(crate) fn shown(&self) -> Shown {
        let lines = |said: String| -> Vec<serde_json::Value> {
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let images = lines(self.ok(&["image", "ls", "--json"]));
        let images = images.iter().flat_map(|image| image["names"].as_array().unwrap().clone());
        let mut images: Vec<_> = images.map(|name| name.as_str().unwrap().to_owned()).collect();
        let containers = lines(self.ok(&["ls", "--json"]));
        let containers = containers.iter().filter(|found| found["ephemeral"] == false);
        let mut containers: Vec<_> =
            containers.map(|found| found["name"].as_str().unwrap().to_owned()).collect();
        images.sort();
        containers.sort();
        Shown { images, containers }
    }

    /// Nothing is wrong with the store, or a repair heals it; then there is nothing to be found.
    /// What was there before is there as it was.
    #[track_caller]
    pub(crate) fn assert_heals(&self, when: &str) {
        let found = self.plyfs(&["check"]);
        let said = String::from_utf8_lossy(&found.stdout);
        assert!(found.status.success(), "{}: {when}: {said}", self.fs);
        self.ok(&["check", "--repair"]);
        let said = self.ok(&["check"]);
        assert!(said.contains("nothing found"), "{}: {when}: {said}", self.fs);
        let upper = self.store().container("box").unwrap().upper();
        let mut left = fs::read_dir(upper.join("data")).unwrap().map(|file| file.unwrap().path());
        let whole = |file: PathBuf| fs::read(file).unwrap() == [7; 3000];
        assert!(left.by_ref().all(whole), "{}: {when}", self.fs);
        assert_eq!(fs::read_dir(upper.join("data")).unwrap().count(), CHANGED, "{when}");
    }

    /// Waits until nothing is mounted in the store: a server unmounts when its `run` was killed.
    pub(crate) fn settle(&self) {
        let begin = Instant::now();
        while self.mounts() > 0 {
            assert!(begin.elapsed() < Duration::from_secs(30), "still mounted");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How many mounts there are in the store.
    pub(crate) fn mounts(&self) -> usize {
        let mounts = plyfs::sys::mountinfo::read().unwrap();
        mounts.iter().filter(|mount| mount.point.starts_with(self.root())).count()
    }

    /// Makes a container with changes, if there is none of that name.
    fn container(&self, name: &str) {
        let store = self.store();
        if store.container(name).is_ok() {
            return;
        }
        let data = create(&store, "base", name).upper().join("data");
        fs::create_dir(&data).unwrap();
        for number in 0..CHANGED {
            fs::write(data.join(number.to_string()), [7; 3000]).unwrap();
        }
    }

    fn with_new(&self) {
        self.ok(work("image import").command);
    }

    fn without(&self, image: &str) {
        if self.store().resolve(image).is_ok() {
            self.ok(&["image", "rm", image]);
        }
    }

    fn without_container(&self, name: &str) {
        if self.store().container(name).is_ok() {
            self.ok(&["rm", name]);
        }
    }

    /// Leaves what crashes leave.
    fn litter(&self) {
        for place in ["incoming/aaaa/0/root", "trees/0123/root", "snapshots/9999/upper", "trash/x"]
        {
            let place = self.root().join(place);
            fs::create_dir_all(&place).unwrap();
            for number in 0..60 {
                fs::write(place.join(number.to_string()), [1; 2000]).unwrap();
            }
        }
    }

    /// Leaves so many bytes free and no more; `None` gives the space back.
    pub(crate) fn leave_free(&self, bytes: Option<u64>) {
        let path = self.small().join("filler");
        let Some(wanted) = bytes else {
            return fs::remove_file(path).unwrap();
        };
        let mut filler = fs::File::create(path).unwrap();
        let surplus = self.free().saturating_sub(wanted);
        let flags = rustix::fs::FallocateFlags::empty();
        // The filesystem needs some for itself.
        let mut take = surplus;
        while take > 0 && rustix::fs::fallocate(&filler, flags, 0, take).is_err() {
            take = take.saturating_sub(64 << 10);
        }
        std::io::Seek::seek(&mut filler, std::io::SeekFrom::End(0)).unwrap();
        for piece in [4096, 1] {
            while self.free() > wanted && filler.write_all(&vec![1; piece]).is_ok() {}
        }
        filler.sync_all().unwrap();
    }

    /// How many bytes are free.
    pub(crate) fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.small()).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let mounts = plyfs::sys::mountinfo::read().unwrap();
        for mount in mounts.iter().rev().filter(|mount| mount.point.starts_with(self.dir.path())) {
            let flags = rustix::mount::UnmountFlags::DETACH;
            rustix::mount::unmount(&mount.point, flags).unwrap();
        }
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
