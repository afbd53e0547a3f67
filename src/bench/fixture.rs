//! The layers that workloads begin with, made once and read by all.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{failed, open};
use crate::errno::{Context, Error, Result};

/// What the layers hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lower {
    /// One layer with one small file.
    Empty,
    /// Three layers that share their directories; of 200 bytes to 25 KiB.
    Tree {
        /// How many directories.
        dirs: u32,
        /// Files in each.
        files: u32,
    },
    /// One layer with large files.
    Large {
        /// Bytes of each.
        bytes: u64,
        /// How many.
        files: u32,
    },
    /// One layer with one file that is mostly a hole.
    Sparse {
        /// Its size.
        bytes: u64,
        /// The bytes at its end that are data.
        data: u64,
    },
    /// Layers with a directory that each of them has, the lowest with the files.
    Layers {
        /// How many.
        layers: u32,
        /// Files in the lowest.
        files: u32,
    },
    /// One layer with many empty files in one directory.
    Wide {
        /// How many.
        files: u32,
    },
    /// As `Wide`, under a layer that hides every other file.
    Hidden {
        /// How many.
        files: u32,
    },
    /// C sources: one function each, and one that calls them all.
    Sources {
        /// How many.
        files: u32,
    },
}

/// A file of the merged tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its path from the root.
    pub path: PathBuf,
    /// Its size.
    pub size: u64,
}

/// Layers on disk.
#[derive(Debug)]
pub struct Fixture {
    /// The layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// The regular files of the merged tree.
    pub files: Vec<Leaf>,
    /// The directories of the merged tree, without its root.
    pub dirs: Vec<PathBuf>,
    /// For copies of the merged tree that nobody changes.
    pub kept: PathBuf,
    /// For what workloads need besides: archives, repositories.
    pub extra: PathBuf,
}

/// What every data byte of a file made here is, by its position: so that any piece can be checked.
pub fn byte_at(position: u64) -> u8 {
    // A prime, so that no block looks like another; never 0, so that no hole looks like data.
    u8::try_from(position % 251).unwrap_or(0) + 1
}

/// Fills a buffer that begins at this position of a file.
pub fn fill(buffer: &mut [u8], position: u64) {
    for (byte, at) in buffer.iter_mut().zip(position..) {
        *byte = byte_at(at);
    }
}

/// How much of a file is written at a time: a multiple of what [`byte_at`] repeats after.
const PIECE: usize = 251 * 4096;

impl Lower {
    /// How many bytes it takes on disk, about.
    pub fn bytes(&self) -> u64 {
        const ENTRY: u64 = 4096;
        match *self {
            Self::Empty => ENTRY,
            Self::Tree { dirs, files } => u64::from(dirs) * u64::from(files) * 10_000,
            Self::Large { bytes, files } => bytes * u64::from(files),
            Self::Sparse { data, .. } => data,
            Self::Layers { layers, files } => (4 * u64::from(layers) + u64::from(files)) * ENTRY,
            Self::Wide { files } | Self::Hidden { files } => u64::from(files) * 512,
            Self::Sources { files } => u64::from(files) * ENTRY,
        }
    }

    /// A name for its directory.
    pub fn name(&self) -> String {
        match *self {
            Self::Empty => "empty".to_owned(),
            Self::Tree { dirs, files } => format!("tree-{dirs}-{files}"),
            Self::Large { bytes, files } => format!("large-{bytes}-{files}"),
            Self::Sparse { bytes, data } => format!("sparse-{bytes}-{data}"),
            Self::Layers { layers, files } => format!("layers-{layers}-{files}"),
            Self::Wide { files } => format!("wide-{files}"),
            Self::Hidden { files } => format!("hidden-{files}"),
            Self::Sources { files } => format!("sources-{files}"),
        }
    }

    /// Makes it in a directory that is not there yet.
    pub fn make(&self, at: &Path) -> Result<Fixture> {
        let mut maker = Maker::new(at, self.layers())?;
        match *self {
            Self::Empty => maker.file(0, "here", 8)?,
            Self::Tree { dirs, files } => maker.tree(dirs, files)?,
            Self::Large { bytes, files } => {
                for number in 0..files {
                    maker.file(0, &format!("large{number}"), bytes)?;
                }
            }
            Self::Sparse { bytes, data } => maker.sparse(bytes, data)?,
            Self::Layers { layers, files } => {
                for layer in 0..layers {
                    maker.dir(layer, "shared")?;
                    maker.file(layer, &format!("shared/of{layer}"), 8)?;
                }
                for number in 0..files {
                    let lowest = layers.saturating_sub(1);
                    maker.file(lowest, &format!("shared/file{number}"), 200)?;
                }
            }
            Self::Wide { files } => maker.wide(0, files, |_| true)?,
            Self::Hidden { files } => {
                maker.wide(1, files, |number| number % 2 == 1)?;
                maker.whiteouts(files)?;
            }
            Self::Sources { files } => maker.sources(files)?,
        }
        maker.done()
    }

    fn layers(&self) -> u32 {
        match *self {
            Self::Tree { .. } => 3,
            Self::Layers { layers, .. } => layers,
            Self::Hidden { .. } => 2,
            _ => 1,
        }
    }
}

/// Layers that are being made.
struct Maker {
    fixture: Fixture,
}

impl Maker {
    fn new(at: &Path, layers: u32) -> Result<Self> {
        let lowers: Vec<_> = (0..layers).map(|layer| at.join(layer.to_string())).collect();
        let (kept, extra) = (at.join("kept"), at.join("extra"));
        for dir in lowers.iter().chain([&kept, &extra]) {
            fs::create_dir_all(dir)?;
        }
        Ok(Self { fixture: Fixture { lowers, files: Vec::new(), dirs: Vec::new(), kept, extra } })
    }

    fn at(&self, layer: u32, path: &str) -> Result<PathBuf> {
        let layer = usize::try_from(layer).ok().and_then(|n| self.fixture.lowers.get(n));
        layer.map(|layer| layer.join(path)).ok_or_else(|| failed("a layer too many"))
    }

    fn dir(&mut self, layer: u32, path: &str) -> Result<()> {
        fs::create_dir(self.at(layer, path)?)?;
        if !self.fixture.dirs.iter().any(|dir| dir == Path::new(path)) {
            self.fixture.dirs.push(path.into());
        }
        Ok(())
    }

    /// A file of the merged tree.
    fn file(&mut self, layer: u32, path: &str, size: u64) -> Result<()> {
        self.hidden_file(layer, path, size)?;
        self.fixture.files.push(Leaf { path: path.into(), size });
        Ok(())
    }

    /// A file that a layer above replaces.
    fn hidden_file(&self, layer: u32, path: &str, size: u64) -> Result<()> {
        let path = self.at(layer, path)?;
        let mut file = fs::File::create_new(&path)?;
        let length = usize::try_from(size).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; length];
        fill(&mut piece, 0);
        let mut left = size;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(length).min(length);
            file.write_all(piece.get(..now).unwrap_or_default())
                .context(|| path.display().to_string())?;
            left -= now as u64;
        }
        Ok(())
    }

    /// In each directory most files lie in the lowest layer, some in those above, and two of the
    /// lowest are replaced there.
    fn tree(&mut self, dirs: u32, files: u32) -> Result<()> {
        for dir in 0..dirs {
            let name = format!("dir{dir:03}");
            for layer in 0..3 {
                self.dir(layer, &name)?;
            }
            for file in 0..files {
                let layer = match file % 10 {
                    0 => 0,
                    1 => 1,
                    _ => 2,
                };
                let path = format!("{name}/file{file:03}");
                self.file(layer, &path, 200 << ((dir + file) % 8))?;
                if file < 2 {
                    self.hidden_file(2, &path, 100)?;
                }
            }
        }
        Ok(())
    }

    fn sparse(&mut self, bytes: u64, data: u64) -> Result<()> {
        let file = fs::File::create_new(self.at(0, "sparse")?)?;
        file.set_len(bytes)?;
        let begin = bytes.saturating_sub(data);
        let mut piece = vec![0; usize::try_from(data).map_err(|_| failed("too much data"))?];
        fill(&mut piece, begin);
        file.write_all_at(&piece, begin)?;
        self.fixture.files.push(Leaf { path: "sparse".into(), size: bytes });
        Ok(())
    }

    /// One directory; those files that `shown` tells of are seen in the merged tree.
    fn wide(&mut self, layer: u32, files: u32, shown: impl Fn(u32) -> bool) -> Result<()> {
        self.dir(layer, "wide")?;
        for number in 0..files {
            let path = format!("wide/entry{number:06}");
            if shown(number) {
                self.file(layer, &path, 0)?;
            } else {
                self.hidden_file(layer, &path, 0)?;
            }
        }
        Ok(())
    }

    fn whiteouts(&mut self, files: u32) -> Result<()> {
        self.dir(0, "wide")?;
        for number in (0..files).step_by(2) {
            let path = self.at(0, &format!("wide/entry{number:06}"))?;
            mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(Error::from)
                .context(|| "making whiteouts")?;
        }
        Ok(())
    }

    fn sources(&mut self, files: u32) -> Result<()> {
        self.dir(0, "src")?;
        let (mut parts, mut sum) = (String::new(), String::from("0"));
        for number in 0..files {
            let word = "x".repeat(number as usize + 1);
            let text = format!(
                "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
                 int part{number}(void) {{ return (int) strlen(\"{word}\"); }}\n"
            );
            self.text(&format!("src/part{number}.c"), &text)?;
            parts = format!("{parts}int part{number}(void);\n");
            sum = format!("{sum} + part{number}()");
        }
        let body = format!("int main(void) {{ printf(\"%d\\n\", {sum}); return 0; }}\n");
        self.text("src/main.c", &format!("#include <stdio.h>\n{parts}{body}"))
    }

    fn text(&mut self, path: &str, text: &str) -> Result<()> {
        fs::write(self.at(0, path)?, text)?;
        self.fixture.files.push(Leaf { path: path.into(), size: text.len() as u64 });
        Ok(())
    }

    /// Reads it once, so that it lies in the page cache for whoever comes first, too.
    fn done(self) -> Result<Fixture> {
        for lower in &self.fixture.lowers {
            read_all(lower)?;
        }
        Ok(self.fixture)
    }
}

fn read_all(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            read_all(&entry.path())?;
        } else if kind.is_file() && entry.metadata()?.len() < 256 << 20 {
            std::io::copy(&mut open(&entry.path())?, &mut std::io::sink())?;
        }
    }
    Ok(())
}
