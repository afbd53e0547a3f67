//! What people run: programs that search, unpack, remove, clone, compile, and a database.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::Connection;

use super::{Caches, Group, Leaves, Measured, Scale, Workload};
use crate::bench::fixture::{Fixture, Lower, byte_at};
use crate::bench::site::{Site, check_lower, each, run, time, word};
use crate::bench::{check, failed};
use crate::errno::{Context, Result};

pub(super) fn workloads(scale: Scale) -> Vec<Workload> {
    let mut all: Vec<_> = [(Caches::Fresh, "grep"), (Caches::Dropped, "grep-cold")]
        .into_iter()
        .map(|(caches, name)| {
            let what = "grep -r through a tree of 2000 files for what is in none of them";
            let grep = Workload::new(Group::Jobs, name, what, grep)
                .over(scale.tree())
                .leaves(Leaves::Alone);
            Workload { caches, quick: caches == Caches::Fresh, ..grep.runs(&["grep"]) }
        })
        .collect();
    let job = |name: &str, what: &str, act: fn(&Site<'_>) -> Measured| {
        Workload::new(Group::Jobs, name, what, act).over(scale.little())
    };
    all.extend([
        job("untar", "tar -xf of 300 files in 10 directories", untar).runs(&["tar"]).quick(),
        job("rm-r", "rm -r of a lower tree of 300 files", remove).runs(&["rm"]).quick(),
        job("cp-r", "cp -r of a lower tree of 300 files", copy).runs(&["cp"]),
        job("git-clone", "git clone of 300 files", git_clone).runs(&["git"]),
        job("git-status", "git status, the second one, in a clone of 300 files", git_status)
            .runs(&["git"]),
    ]);
    let lower = Lower::Sources { files: scale.count(12) };
    let what = "cc of 13 small C files one after another, and the link";
    let build = Workload::new(Group::Jobs, "build", what, build).over(lower);
    all.push(build.runs(&["cc"]));
    let count = scale.count(50);
    for (name, mode, quick) in [("sqlite", "delete", true), ("sqlite-wal", "wal", false)] {
        let what = format!("50 transactions of SQLite, journal_mode={mode}, synchronous=full");
        let act = move |site: &Site<'_>| sqlite(site, mode, count);
        let workload = Workload::new(Group::Jobs, name, what, act).per("transaction");
        all.push(Workload { quick, ..workload });
    }
    all
}

/// Something that no file made here has in it: the bytes in them only rise.
const NOWHERE: &str = "zyxwvut";

fn grep(site: &Site<'_>) -> Measured {
    debug_assert!(byte_at(0) < byte_at(1), "what is searched for is in no file");
    let search = |what: &str| {
        let mut command = Command::new("grep");
        command.args(["-r", "-a", "-l", "-F", what, "."]).current_dir(site.root);
        command.env("LC_ALL", "C").stdin(Stdio::null()).output().context(|| "grep")
    };
    let (seconds, output) = time(|| search(NOWHERE))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.code() == Some(1) && said.is_empty(), || said)?;
    // That it has been through all of them, it says when it is asked for what is in all.
    let listed = search("abcdefg")?.stdout;
    let found = listed.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
    let files = site.fixture.files.len();
    check(found == files, || format!("grep finds {found} files of {files}"))?;
    Ok(vec![seconds])
}

/// The lower tree as an archive, made once.
fn archive(fixture: &Fixture) -> Result<PathBuf> {
    let path = fixture.extra.join("tree.tar");
    if !path.exists() {
        let half = fixture.extra.join("half.tar");
        let mut arguments = vec!["-cf", word(&half)?];
        let places: Vec<_> = fixture.lowers.iter().rev().collect();
        for lower in places {
            arguments.extend(["-C", word(lower)?, "."]);
        }
        run("tar", &arguments, &fixture.extra)?;
        fs::rename(&half, &path)?;
    }
    Ok(path)
}

/// Fails unless the tree of the fixture is in this directory.
fn check_tree(site: &Site<'_>, dir: &Path) -> Result<()> {
    for leaf in &site.fixture.files {
        let path = dir.join(&leaf.path);
        let size = fs::metadata(&path).context(|| path.display().to_string())?.len();
        check(size == leaf.size, || format!("{}: {size} bytes", path.display()))?;
        check_lower(&path, 0, 100)?;
    }
    Ok(())
}

fn untar(site: &Site<'_>) -> Measured {
    let archive = archive(site.fixture)?;
    let dest = site.at("unpacked");
    fs::create_dir(&dest)?;
    let (seconds, _) = time(|| run("tar", &["-xf", word(&archive)?], &dest))?;
    check_tree(site, &dest)?;
    Ok(vec![seconds])
}

fn remove(site: &Site<'_>) -> Measured {
    let names: Vec<_> = site.fixture.dirs.iter().filter_map(|dir| dir.to_str()).collect();
    let arguments: Vec<_> = ["-r"].into_iter().chain(names).collect();
    let (seconds, _) = time(|| run("rm", &arguments, site.root))?;
    let left = fs::read_dir(site.root)?.count();
    check(left == 0, || format!("{left} entries are left"))?;
    Ok(vec![seconds])
}

fn copy(site: &Site<'_>) -> Measured {
    let dest = site.at("copy");
    fs::create_dir(&dest)?;
    let names: Vec<_> = site.fixture.dirs.iter().filter_map(|dir| dir.to_str()).collect();
    let arguments: Vec<_> = ["-r"].into_iter().chain(names).chain(["copy"]).collect();
    let (seconds, _) = time(|| run("cp", &arguments, site.root))?;
    check_tree(site, &dest)?;
    Ok(vec![seconds])
}

/// git, without what this user has configured.
fn git(arguments: &[&str], dir: &Path) -> Result<Vec<u8>> {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"]);
    command.args(["-c", "safe.directory=*", "-c", "gc.auto=0", "-c", "core.fsync=none"]);
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = command.output().context(|| "cannot start git")?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.trim().chars().take(300).collect::<String>()))
}

/// A repository with the lower tree, made once.
fn repository(fixture: &Fixture) -> Result<PathBuf> {
    let (bare, tree) = (fixture.extra.join("tree.git"), fixture.extra.join("half"));
    if !bare.exists() {
        fs::create_dir(&tree)?;
        run("tar", &["-xf", word(&archive(fixture)?)?], &tree)?;
        git(&["init", "--quiet"], &tree)?;
        git(&["add", "."], &tree)?;
        git(&["commit", "--quiet", "--message", "tree"], &tree)?;
        git(&["clone", "--quiet", "--bare", ".", word(&bare)?], &tree)?;
    }
    Ok(bare)
}

/// Clones by the protocol, not by links.
fn clone(site: &Site<'_>) -> Result<()> {
    let from = format!("file://{}", word(&repository(site.fixture)?)?);
    git(&["clone", "--quiet", &from, "clone"], site.root).map(drop)
}

fn git_clone(site: &Site<'_>) -> Measured {
    repository(site.fixture)?;
    let (seconds, ()) = time(|| clone(site))?;
    check_tree(site, &site.at("clone"))?;
    Ok(vec![seconds])
}

fn git_status(site: &Site<'_>) -> Measured {
    clone(site)?;
    let dir = site.at("clone");
    let status = || git(&["status", "--porcelain"], &dir);
    status()?;
    let changed = site.fixture.files.first().ok_or_else(|| failed("there is no file"))?;
    fs::write(dir.join(&changed.path), "changed")?;
    let (seconds, said) = time(status)?;
    let expected = format!(" M {}\n", changed.path.display());
    check(said == expected.as_bytes(), || String::from_utf8_lossy(&said).into_owned())?;
    Ok(vec![seconds])
}

fn build(site: &Site<'_>) -> Measured {
    let dir = site.at("src");
    let names: Vec<_> =
        site.fixture.files.iter().filter_map(|leaf| leaf.path.file_stem()).collect();
    let names: Vec<_> = names.iter().filter_map(|name| name.to_str()).collect();
    let objects: Vec<_> = names.iter().map(|name| format!("{name}.o")).collect();
    let (seconds, ()) = time(|| {
        for name in &names {
            run("cc", &["-O1", "-c", &format!("{name}.c")], &dir)?;
        }
        let objects: Vec<_> = objects.iter().map(String::as_str).collect();
        let arguments: Vec<_> = ["-o", "program"].into_iter().chain(objects).collect();
        run("cc", &arguments, &dir).map(drop)
    })?;
    let parts = names.len() - 1;
    let said = run(word(&dir.join("program"))?, &[], &dir)?;
    let expected = format!("{}\n", parts * (parts + 1) / 2);
    check(said == expected.as_bytes(), || String::from_utf8_lossy(&said).into_owned())?;
    Ok(vec![seconds])
}

fn sqlite(site: &Site<'_>, mode: &str, count: u32) -> Measured {
    let broken = |error: rusqlite::Error| failed(format!("SQLite: {error}"));
    let path = site.at("database");
    let database = Connection::open(&path).map_err(broken)?;
    database.pragma_update(None, "journal_mode", mode).map_err(broken)?;
    database.pragma_update(None, "synchronous", "full").map_err(broken)?;
    database.execute_batch("CREATE TABLE t (n INTEGER, x TEXT)").map_err(broken)?;
    let (seconds, ()) = time(|| {
        for number in 0..count {
            let row = (number, "some text that is neither long nor short");
            database.execute("INSERT INTO t VALUES (?1, ?2)", row).map_err(broken)?;
        }
        Ok(())
    })?;
    let mode_now: String =
        database.query_row("PRAGMA journal_mode", (), |row| row.get(0)).map_err(broken)?;
    check(mode_now == mode, || format!("journal_mode is {mode_now}"))?;
    drop(database);
    let again = Connection::open(&path).map_err(broken)?;
    let sum = |row: &rusqlite::Row<'_>| row.get::<_, u32>(0);
    let sum = again.query_row("SELECT coalesce(sum(n), 0) FROM t", (), sum).map_err(broken)?;
    check(sum == (0..count).sum::<u32>(), || format!("the sum of the rows is {sum}"))?;
    Ok(vec![each(seconds, count as usize)])
}
