//! The rules of the source tree that no compiler checks: who may use whom, where a name may be
//! said, how long a file is. Each rule is a function from files to complaints, so that it can be
//! fed a bad sample.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't read the tree has to fail"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// Which rooms a room may use. What is not listed is forbidden, so a new room needs a line here.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "bench",
            "fuse",
            "store",
            "image",
            "container",
            "union",
            "layer",
            "sys",
            "attr",
            "errno",
            "name",
        ],
    ),
    // A benchmark that knew what it measures from within would favour it.
    ("bench", &["sys", "errno"]),
    ("store", &["image", "union", "layer", "sys", "attr", "errno", "name"]),
    ("image", &["union", "layer", "sys", "attr", "errno", "name"]),
    ("container", &["sys", "attr", "errno", "name"]),
    ("fuse", &["union", "layer", "sys", "attr", "errno", "name"]),
    ("testkit", &["image", "union", "layer", "sys", "attr", "errno", "name"]),
    ("union", &["layer", "attr", "errno", "name"]),
    ("layer", &["sys", "attr", "errno", "name"]),
    ("sys", &["attr", "errno", "name"]),
    ("attr", &["errno", "name"]),
    ("errno", &[]),
    ("name", &["errno"]),
];

/// A name, where it may be said (a path prefix), and why only there.
const PLACES: &[(&str, &str, &str)] = &[
    ("fuser", "src/fuse", "one driver among others"),
    ("clap", "src/cli", "the command line is one room"),
    ("unsafe", "src/sys", "one room to read for memory safety"),
    ("last_os_error", "src/sys", "errno is read where the call is made"),
    ("libc::syscall", "src/sys", "raw calls have typed wrappers"),
    ("print!", "src/cli/output.rs", "one place knows about --json and terminals"),
    ("println!", "src/cli/output.rs", "one place knows about --json and terminals"),
    ("eprint!", "src/cli/output.rs", "one place knows about --json and terminals"),
    ("eprintln!", "src/cli/output.rs", "one place knows about --json and terminals"),
];

/// What nobody says anywhere.
const NOWHERE: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];

/// Module names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "types", "misc", "shared"];

/// Files that may be longer than [`MAX_LINES`], each with its reason.
const TABLES: &[(&str, &str)] = &[];

const MAX_LINES: usize = 600;
const MAX_COLUMNS: usize = 100;

/// A file of the tree: its path from the top, and its text.
struct File {
    path: String,
    text: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Whether it holds nothing but tests.
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
    }

    /// The room it is in, for a file of src/.
    fn room(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        Some(rest.split('/').next()?.trim_end_matches(".rs"))
    }
}

/// All files below `dirs` with this suffix.
fn read_tree(dirs: &[&str], suffix: &str) -> Vec<File> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut todo: Vec<_> = dirs.iter().map(|dir| top.join(dir)).filter(|d| d.exists()).collect();
    let mut files = Vec::new();
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                todo.push(path);
            } else if path.to_str().unwrap().ends_with(suffix) {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(top).unwrap().to_str().unwrap();
                files.push(File::new(path, &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn rust_tree() -> Vec<File> {
    read_tree(&["src", "tests", "benches", "fuzz"], ".rs")
}

/// The text with comments and the contents of literals blanked out, line breaks kept.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = at + skipped(&bytes[at..], at > 0 && is_word(bytes[at - 1]));
        if end == at {
            out.push(char::from(bytes[at]));
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|&b| if b == b'\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// How many bytes a comment or literal that starts here takes; 0 if none does.
fn skipped(rest: &[u8], in_word: bool) -> usize {
    let until = |end: &[u8], from: usize| {
        let found = rest[from.min(rest.len())..].windows(end.len()).position(|w| w == end);
        found.map_or(rest.len(), |n| from + n + end.len())
    };
    let raw = rest.strip_prefix(b"b").unwrap_or(rest).strip_prefix(b"r");
    let hashes = raw.map_or(0, |r| r.iter().take_while(|&&b| b == b'#').count());
    match rest {
        [b'/', b'/', ..] => until(b"\n", 0).saturating_sub(1).max(2),
        [b'/', b'*', ..] => until(b"*/", 2),
        [b'"', ..] => quoted(rest, b'"'),
        [b'\'', b'\\', ..] => quoted(rest, b'\''),
        [b'\'', _, b'\'', ..] => 3,
        _ if !in_word && raw.is_some_and(|r| r.get(hashes) == Some(&b'"')) => {
            let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            until(&end, rest.iter().position(|&b| b == b'"').unwrap() + 1)
        }
        _ => 0,
    }
}

/// The length of a literal that starts with `quote` and knows backslashes.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where `word` stands by itself in `code`, as (line, byte after it).
fn sightings(code: &str, word: &str) -> Vec<(usize, usize)> {
    let bytes = code.as_bytes();
    let ends_in_word = is_word(word.as_bytes()[word.len() - 1]);
    let mut found = Vec::new();
    for (at, _) in code.match_indices(word) {
        let end = at + word.len();
        let before = at > 0 && is_word(bytes[at - 1]) && is_word(word.as_bytes()[0]);
        let after = ends_in_word && bytes.get(end).is_some_and(|&b| is_word(b));
        if !before && !after {
            found.push((1 + code[..at].matches('\n').count(), end));
        }
    }
    found
}

/// The first names of the paths that follow a `crate::`: one, or those of a braced list.
fn heads(rest: &str) -> Vec<String> {
    let word =
        |s: &str| s.trim().chars().take_while(|&c| c == '_' || c.is_alphanumeric()).collect();
    let Some(list) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let (mut depth, mut names, mut name) = (0, Vec::new(), String::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(&std::mem::take(&mut name))),
            c if depth == 0 => name.push(c),
            _ => {}
        }
    }
    names.push(word(&name));
    names.retain(|n: &String| !n.is_empty());
    names
}

/// A file uses only the rooms that its own may use.
fn imports(file: &File) -> Vec<String> {
    let Some(room) = file.room().filter(|&room| room != "lib") else { return Vec::new() };
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{}: room `{room}` is not in the table of rooms", file.path)];
    };
    let code = code_only(&file.text);
    let inner = file.path.trim_end_matches("/mod.rs").matches('/').count();
    let to_root = ["crate::".to_owned(), "plyfs::".to_owned(), "super::".repeat(inner)];
    let mut found = Vec::new();
    for (line, end) in to_root.iter().flat_map(|prefix| sightings(&code, prefix)) {
        for used in heads(&code[end..]) {
            let known = ROOMS.iter().any(|(name, _)| *name == used);
            let tested = file.is_test() && used == "testkit";
            if known && used != room && !allowed.contains(&used.as_str()) && !tested {
                found.push(format!("{}:{line}: `{room}` may not use `{used}`", file.path));
            }
        }
    }
    found
}

/// Names are said only where they may be.
fn places(file: &File) -> Vec<String> {
    let code = code_only(&file.text);
    let mut found = Vec::new();
    for &(word, place, why) in PLACES {
        let printing = word.contains("print");
        let elsewhere = !file.path.starts_with("src/") && (word != "unsafe");
        if file.path.starts_with(place) || elsewhere || (printing && file.is_test()) {
            continue;
        }
        for (line, _) in sightings(&code, word) {
            found.push(format!("{}:{line}: `{word}` only in {place}: {why}", file.path));
        }
    }
    for word in NOWHERE {
        for (line, _) in sightings(&code, word) {
            found.push(format!("{}:{line}: `{word}` is never used here", file.path));
        }
    }
    found
}

/// Header, length, width, alphabet.
fn shape(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    // What tests.rs beside a module is for, its path says.
    if !file.text.starts_with("//! ") && !file.path.ends_with("/tests.rs") {
        found.push(format!("{}:1: a file starts with what it is for (//! ...)", file.path));
    }
    let lines = file.text.lines().count();
    if lines > MAX_LINES && !TABLES.iter().any(|(path, _)| *path == file.path) {
        found.push(format!("{}: {lines} lines, {MAX_LINES} allowed: two rooms in one", file.path));
    }
    for (number, line) in (1..).zip(file.text.lines()) {
        if line.chars().count() > MAX_COLUMNS {
            found.push(format!("{}:{number}: over {MAX_COLUMNS} columns", file.path));
        }
        if !line.is_ascii() || line.contains('\t') {
            found.push(format!("{}:{number}: neither tabs nor anything but ASCII", file.path));
        }
    }
    found
}

/// No module has a name that says nothing.
fn names(file: &File) -> Vec<String> {
    let parts = file.path.trim_end_matches(".rs").split('/');
    let mut said: BTreeSet<String> = parts.map(str::to_owned).collect();
    let code = code_only(&file.text);
    said.extend(sightings(&code, "mod ").iter().flat_map(|&(_, end)| heads(&code[end..])));
    said.retain(|name| EMPTY_NAMES.contains(&name.as_str()));
    said.iter().map(|name| format!("{}: `{name}` says nothing", file.path)).collect()
}

/// Every file of src/ is declared by the file above it; tests lie beside what they test.
fn modules(files: &[File]) -> Vec<String> {
    let texts: BTreeMap<&str, String> =
        files.iter().map(|file| (file.path.as_str(), code_only(&file.text))).collect();
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("src/")) {
        if texts[file.path.as_str()].contains("mod tests {") {
            found.push(format!("{}: tests lie in a file of their own, tests.rs", file.path));
        }
        if ["src/lib.rs", "src/main.rs"].contains(&file.path.as_str()) {
            continue;
        }
        let module = file.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let (parent, name) = module.rsplit_once('/').unwrap();
        let above = match parent {
            "src" => ["src/lib.rs".to_owned(), "src/main.rs".to_owned()],
            _ => [format!("{parent}.rs"), format!("{parent}/mod.rs")],
        };
        let line = format!("mod {name};");
        let declared = above.iter().filter_map(|path| texts.get(path.as_str()));
        if !declared.into_iter().any(|code| !sightings(code, &line).is_empty()) {
            found.push(format!("{}: nothing declares it: a dead file", file.path));
        }
    }
    found
}

/// Every dependency says in a comment what it is for.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        } else if inside && line.contains(" = ") && !line.contains(" # ") {
            found.push(format!("Cargo.toml: what is this for: {line}"));
        }
    }
    found
}

/// A script stops at the first failure.
fn scripts(file: &File) -> Vec<String> {
    let strict = file.text.lines().any(|line| line == "set -euo pipefail");
    let header = file.text.starts_with("#!/usr/bin/env bash\n# ");
    let message = "starts with bash, what it is for, and set -euo pipefail";
    if strict && header { Vec::new() } else { vec![format!("{}: {message}", file.path)] }
}

/// A document links only to files that exist, and says only test names that exist (in its tables,
/// between backquotes, as `test: name`).
fn documents(file: &File, exists: &dyn Fn(&Path) -> bool, tests: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let dir = Path::new(&file.path).parent().unwrap();
    for part in file.text.split("](").skip(1) {
        let target = part.split([')', '#']).next().unwrap();
        if !target.is_empty() && !target.contains("://") && !exists(&dir.join(target)) {
            found.push(format!("{}: link to {target}, which does not exist", file.path));
        }
    }
    for part in file.text.split("`test: ").skip(1) {
        let name = part.split('`').next().unwrap();
        if !tests.contains(name) {
            found.push(format!("{}: there is no test `{name}`", file.path));
        }
    }
    found
}

/// The names of all test functions: `#[test]` ones, and those in a `proptest!`. Each alone, and
/// after its file, as `mounted::data::name`.
fn test_names(files: &[File]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in files {
        let path = file.path.trim_start_matches("src/").trim_start_matches("tests/");
        let module = path.trim_end_matches(".rs").trim_end_matches("/main").replace('/', "::");
        let mut marked = false;
        for line in file.text.lines().map(str::trim) {
            marked |= line == "#[test]";
            if let Some(rest) = line.strip_prefix("fn ").filter(|_| marked) {
                let name = rest.split('(').next().unwrap();
                names.extend([name.to_owned(), format!("{module}::{name}")]);
                marked = false;
            }
        }
    }
    names
}

#[track_caller]
fn assert_none(found: impl IntoIterator<Item = String>) {
    let found: Vec<_> = found.into_iter().collect();
    let mut text = String::new();
    for line in &found {
        writeln!(text, "  {line}").unwrap();
    }
    assert!(found.is_empty(), "{} complaint(s):\n{text}", found.len());
}

#[test]
fn rooms_use_only_what_lies_below() {
    assert_none(rust_tree().iter().flat_map(imports));
}

#[test]
fn names_are_said_only_where_they_belong() {
    assert_none(rust_tree().iter().flat_map(places));
}

#[test]
fn files_have_a_header_and_a_bounded_shape() {
    assert_none(rust_tree().iter().flat_map(shape));
}

#[test]
fn modules_have_names_and_are_declared() {
    let files = rust_tree();
    assert_none(files.iter().flat_map(names).chain(modules(&files)));
}

#[test]
fn dependencies_say_what_they_are_for() {
    for path in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        assert_none(dependencies(&std::fs::read_to_string(path).unwrap()));
    }
}

#[test]
fn scripts_are_strict() {
    let files = read_tree(&["scripts"], ".sh");
    assert!(files.len() >= 4, "scripts/ has moved");
    assert_none(files.iter().flat_map(scripts));
}

#[test]
fn documents_point_at_what_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = test_names(&rust_tree());
    let mut files = read_tree(&["docs"], ".md");
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        files.push(File::new(name, &std::fs::read_to_string(top.join(name)).unwrap()));
    }
    let exists = |path: &Path| top.join(path).exists();
    assert_none(files.iter().flat_map(|file| documents(file, &exists, &tests)));
    let readme = files.iter().find(|file| file.path == "README.md").unwrap();
    assert!(readme.text.lines().count() <= 250, "the README is read in one go");
}

// The rules themselves, on samples that break them and samples that do not.

#[test]
fn upward_imports_are_found() {
    let bad = [
        ("src/layer/dir.rs", "use crate::union::Union;"),
        ("src/union/mod.rs", "fn f() { crate::sys::open() }"),
        ("src/union/node.rs", "use crate::{errno::{A, B}, fuse::Driver, layer::Id};"),
        ("src/union/mod.rs", "use super::fuse::x;"),
        ("src/union/node.rs", "use super::super::cli::x;"),
        ("src/sys/mod.rs", "use crate::layer::Id;"),
        ("src/main.rs", "use plyfs::union::Union;"),
        ("src/testkit/run.rs", "use crate::fuse::mount;"),
        ("src/layer/dir.rs", "use crate::testkit::Op;"),
        ("src/shop/mod.rs", "use crate::layer::Id;"),
        ("src/image/mod.rs", "use crate::store::Store;"),
    ];
    for (path, text) in bad {
        assert_eq!(imports(&File::new(path, text)).len(), 1, "{path}: {text}");
    }
    let good = [
        ("src/layer/dir.rs", "use crate::sys::open; // not crate::union::Union"),
        ("src/fuse/mod.rs", "use crate::{union::{Union, cli}, layer::Layer};"),
        ("src/union/node.rs", "use super::copy_up; const S: &str = \"crate::cli::x\";"),
        ("src/union/tests.rs", "use crate::testkit::Model;"),
        ("src/main.rs", "fn main() -> ExitCode { plyfs::cli::main() }"),
        ("src/lib.rs", "pub mod union;"),
    ];
    for (path, text) in good {
        assert_none(imports(&File::new(path, text)));
    }
}

#[test]
fn misplaced_names_are_found() {
    let bad = [
        ("src/union/mod.rs", "fn f(x: fuser::Request) {}"),
        ("src/fuse/mod.rs", "use clap::Parser;"),
        ("src/fuse/mod.rs", "unsafe { x() }"),
        ("tests/mounted.rs", "unsafe { x() }"),
        ("src/layer/dir.rs", "Error::last_os_error()"),
        ("src/layer/dir.rs", "libc::syscall(1)"),
        ("src/cli/mount.rs", "println!(\"x\");"),
        ("src/cli/mount.rs", "eprintln!(\"x\");"),
        ("src/cli/mount.rs", "todo!()"),
        ("tests/mounted.rs", "#[ignore = \"slow\"]"),
    ];
    for (path, text) in bad {
        assert_eq!(places(&File::new(path, text)).len(), 1, "{path}: {text}");
    }
    let good = [
        ("src/fuse/fuser.rs", "use fuser::Filesystem;"),
        ("src/cli/args.rs", "use clap::Parser;"),
        ("src/sys/call.rs", "unsafe { libc::syscall(1); last_os_error() }"),
        ("src/cli/output.rs", "println!(\"x\"); eprintln!(\"x\")"),
        ("src/lib.rs", "#![deny(unsafe_code)] // unsafe lives in sys; fuser in fuse"),
        ("src/union/mod.rs", "let text = r#\"say \"todo!\" and unsafe\"#; let c = '\"'; f(\"\")"),
        ("src/union/tests.rs", "println!(\"seed {seed}\");"),
    ];
    for (path, text) in good {
        assert_none(places(&File::new(path, text)));
    }
}

#[test]
fn bad_shapes_are_found() {
    let long = format!("//! x\n{}", "x\n".repeat(600));
    let wide = format!("//! x\n{}\n", "x".repeat(101));
    for text in ["fn main() {}\n", &long, &wide, "//! x\n// \u{2500}\n", "//! x\n\tx\n"] {
        assert_eq!(shape(&File::new("src/x.rs", text)).len(), 1);
    }
    assert_none(shape(&File::new("src/x.rs", "//! What it is for.\n")));
}

#[test]
fn nameless_undeclared_and_inline_modules_are_found() {
    assert_eq!(names(&File::new("src/fuse/utils.rs", "")).len(), 1);
    assert_eq!(names(&File::new("src/fuse/mod.rs", "mod common;")).len(), 1);
    assert_none(names(&File::new("src/fuse/mod.rs", "mod commonplace; // mod common;")));
    let lib = File::new("src/lib.rs", "pub mod a;");
    let inner = File::new("src/a/mod.rs", "mod b;\n// mod c;\nmod tests {");
    let tree = [lib, inner, File::new("src/a/b.rs", ""), File::new("src/a/c.rs", "")];
    let found = modules(&tree);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().any(|text| text.starts_with("src/a/c.rs")));
    assert!(found.iter().any(|text| text.starts_with("src/a/mod.rs")));
}

#[test]
fn bare_dependencies_loose_scripts_and_dead_links_are_found() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na = \"1\"\nb = \"1\" # for b\n";
    assert_eq!(dependencies(manifest).len(), 1);
    assert_eq!(scripts(&File::new("scripts/x.sh", "#!/bin/sh\ntrue\n")).len(), 1);
    let strict = "#!/usr/bin/env bash\n# What for.\nset -euo pipefail\n";
    assert_none(scripts(&File::new("scripts/x.sh", strict)));
    let text = "[a](B.md) [c](../C.md#x) [w](https://w) `test: one` `test: two`";
    let tests = BTreeSet::from(["one".to_owned()]);
    let exists = |path: &Path| path.ends_with("B.md");
    assert_eq!(documents(&File::new("docs/A.md", text), &exists, &tests).len(), 2);
}

#[test]
fn test_names_are_collected() {
    let text = "#[test]\nfn one() {}\nfn two() {}\n#[test]\n#[cfg(x)]\nfn three() {}\n";
    let names = test_names(&[File::new("tests/x.rs", text), File::new("tests/y/main.rs", "")]);
    assert_eq!(names, BTreeSet::from(["one", "three", "x::one", "x::three"].map(str::to_owned)));
}
