//! Programs that mount and serve: plyfs itself, fuse-overlayfs, and whatever else is called as
//! those are. Whether one goes into the background or stays does not matter.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::{Mounted, Stack, Target, ending, last};
use crate::bench::failed;
use crate::errno::{Context, Errno, Error, Result};
use crate::sys::fuse_mount;

/// A program, and how it is called.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    /// Its path, or its name.
    path: PathBuf,
    /// In which `{opts}`, `{mnt}`, `{lower}`, `{upper}` and `{work}` stand for what they say.
    arguments: Vec<String>,
    /// What is said of it besides its version.
    how: String,
}

/// How long a mount may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);

/// plyfs, on one of its drivers.
pub(super) fn plyfs(name: &str, program: &Path, driver: &str) -> Program {
    let words = ["mount", &format!("--driver={driver}"), "-o", "{opts}", "{mnt}"];
    Program {
        name: name.to_owned(),
        path: program.to_owned(),
        arguments: words.map(str::to_owned).to_vec(),
        how: format!(", driver {driver}"),
    }
}

/// A program that is called as fuse-overlayfs is, by its path or its name.
pub(super) fn alike(name: &str, program: &str) -> Program {
    let arguments = ["-o", "{opts}", "{mnt}"].map(str::to_owned).to_vec();
    Program { name: name.to_owned(), path: program.into(), arguments, how: String::new() }
}

/// A program as a command line calls it.
pub(super) fn by_line(name: Option<String>, line: &str) -> Result<Program> {
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    let program = words.next().ok_or_else(|| failed("'cmd:' is followed by a command"))?;
    let arguments: Vec<String> = words.collect();
    let says = |what| arguments.iter().any(|word| word.contains(what));
    if !says("{mnt}") || !(says("{opts}") || (says("{lower}") && says("{upper}"))) {
        let hint = "'cmd:PROGRAM -o {opts} {mnt}': it has to be told the layers and where to mount";
        return Err(failed(hint));
    }
    let name = name.unwrap_or_else(|| last(&program));
    Ok(Program { name, path: program.into(), how: format!(": {line}"), arguments })
}

impl Program {
    /// The program's file.
    fn file(&self) -> Result<PathBuf> {
        let said = self.path.as_os_str();
        if said.as_bytes().contains(&b'/') {
            return self.path.canonicalize().context(|| said.display().to_string());
        }
        let found = said.to_str().and_then(fuse_mount::find_program);
        found.ok_or_else(|| {
            Error::new(Errno::ENOENT, format!("there is no program '{}' in $PATH", said.display()))
        })
    }

    /// What it answers to `--version`: a line.
    fn version(&self) -> Option<String> {
        let file = self.file().ok()?;
        let output = Command::new(file).arg("--version").stdin(Stdio::null()).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&said).lines().next()?.trim().to_owned();
        (output.status.success() && !line.is_empty()).then_some(line)
    }

    fn start(&self, stack: &Stack<'_>, said: &Path) -> Result<Child> {
        let shown = |path: &Path| path.display().to_string();
        let lowers: Vec<_> = stack.lowers.iter().map(|lower| shown(lower)).collect();
        let values = [
            ("{opts}", stack.options()),
            ("{mnt}", shown(stack.mnt)),
            ("{lower}", lowers.join(":")),
            ("{upper}", shown(stack.upper)),
            ("{work}", shown(stack.work)),
        ];
        let words = self.arguments.iter().map(|word| {
            let fill = |word: String, (key, value): &(&str, String)| word.replace(key, value);
            OsString::from(values.iter().fold(word.clone(), fill))
        });
        let file = self.file()?;
        let errors = std::fs::File::create(said)?;
        Command::new(&file)
            .args(words)
            .env_remove("PLYFS_DRIVER")
            .env("PLYFS_LOG_FILE", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            // A Ctrl-C is for us, who unmount.
            .process_group(0)
            .spawn()
            .context(|| format!("cannot start {}", file.display()))
    }
}

impl Target for Program {
    fn name(&self) -> &str {
        &self.name
    }

    fn about(&self) -> String {
        let version = self.version().unwrap_or_else(|| self.path.display().to_string());
        format!("{version}{}", self.how)
    }

    fn mount(&self, stack: &Stack<'_>) -> Result<Mounted> {
        let said = stack.mnt.with_extension("said");
        let before = fuse_mount::mount_id(stack.mnt)?;
        let mut child = self.start(stack, &said)?;
        let until = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(100);
        loop {
            let ended = child.try_wait()?;
            if fuse_mount::mount_id(stack.mnt).is_ok_and(|now| now != before) {
                // Answered when the server is ready.
                let mounted = Mounted::served(stack, ended.is_none().then_some(child));
                rustix::fs::statfs(stack.mnt).context(|| "it mounts, but does not answer")?;
                return Ok(mounted);
            }
            match ended {
                Some(status) if !status.success() => {
                    return Err(failed(format!("it {}: {}", ending(status), words(&said))));
                }
                _ if Instant::now() > until => {
                    child.kill()?;
                    child.wait()?;
                    let seconds = PATIENCE.as_secs();
                    let why = format!("nothing mounted in {seconds} seconds: {}", words(&said));
                    return Err(failed(why));
                }
                _ => {}
            }
            std::thread::sleep(pause);
            pause = (pause * 5 / 4).min(Duration::from_millis(2));
        }
    }
}

/// What a program said last: as much as fits a message.
fn words(said: &Path) -> String {
    let said = std::fs::read(said).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("; ");
    if last.is_empty() { "it said nothing".to_owned() } else { last.chars().take(300).collect() }
}

/// The processes that were started with this path as one of their arguments.
pub(super) fn naming(path: &Path) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = rustix::process::getpid();
    let pids = processes.flatten().filter_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let named = line.split(|&byte| byte == 0).any(|word| word == path.as_os_str().as_bytes());
        (named && pid != own).then_some(pid)
    });
    pids.collect()
}
