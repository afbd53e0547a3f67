//! A raw layer in memory as text.

use std::collections::HashMap;
use std::fmt::Write;

use super::tree::{Body, Node, Tree};
use crate::layer::{Nlink, NlinkBase};

/// Content up to this length is shown, beyond it only its length and hash.
const SHOWN: usize = 32;

pub(super) fn dump(tree: &Tree, exact: bool) -> String {
    let mut dump = Dump { tree, exact, out: String::new(), seen: HashMap::new() };
    dump.object(b"/", tree.root);
    for (name, &ino) in &tree.work {
        dump.object(&[b"#work/", name.as_slice()].concat(), ino);
    }
    if let Some(index) = tree.index {
        dump.object(b"#index", index);
    }
    dump.out
}

struct Dump<'a> {
    tree: &'a Tree,
    exact: bool,
    out: String,
    /// The first path of each object with several.
    seen: HashMap<u64, String>,
}

impl Dump<'_> {
    fn line(&mut self, line: &str) {
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    fn object(&mut self, path: &[u8], ino: u64) {
        let Some(node) = self.tree.nodes.get(&ino) else {
            return self.line(&format!("{} DANGLING", path.escape_ascii()));
        };
        let shown = path.escape_ascii().to_string();
        if let Some(first) = self.seen.get(&ino) {
            let line = format!("{shown} = {first}");
            return self.line(&line);
        }
        let line = format!("{shown} {}", describe(node, self.exact));
        self.line(&line);
        if !node.is_dir() {
            self.seen.insert(ino, shown);
        }
        let Body::Dir(dir) = &node.body else { return };
        let base = path.strip_suffix(b"/").unwrap_or(path);
        for name in &dir.siblings {
            let full = [base, b"/.wh.", name.as_slice()].concat();
            self.line(&format!("{} whiteout beside", full.escape_ascii()));
        }
        for (name, &child) in &dir.entries {
            self.object(&[base, b"/", name.as_slice()].concat(), child);
        }
    }
}

fn describe(node: &Node, exact: bool) -> String {
    let mut text = match &node.body {
        Body::Whiteout => "whiteout".to_owned(),
        Body::Dir(_) => "dir".to_owned(),
        Body::File(bytes) => format!("file {}", content(bytes)),
        Body::Symlink(target) => format!("symlink -> {}", target.escape_ascii()),
        Body::Special(kind, rdev) => format!("{kind:?} {rdev:#x}").to_lowercase(),
    };
    if !matches!(node.body, Body::Whiteout) {
        let Node { perm, uid, gid, .. } = node;
        push(&mut text, format_args!(" {perm:04o} {uid}:{gid}"));
    }
    if !node.is_dir() && node.names > 1 {
        push(&mut text, format_args!(" nlink={}", node.names));
    }
    for (name, value) in &node.xattrs {
        push(&mut text, format_args!(" {}={}", name.escape_ascii(), content(value)));
    }
    marks(&mut text, node);
    if exact {
        let Node { ino, atime, mtime, ctime, .. } = node;
        let times = [atime, mtime, ctime].map(|t| format!("{}.{}", t.sec, t.nsec)).join("/");
        push(&mut text, format_args!(" ino={ino} times={times}"));
    }
    text
}

fn marks(text: &mut String, node: &Node) {
    let marks = &node.marks;
    if marks.opaque {
        text.push_str(" [opaque]");
    }
    if let Some(to) = &marks.redirect {
        push(text, format_args!(" [redirect {}]", to.escape_ascii()));
    }
    if marks.metacopy {
        text.push_str(" [metacopy]");
    }
    if marks.impure {
        text.push_str(" [impure]");
    }
    if let Some(ino) = marks.ino {
        push(text, format_args!(" [ino {ino}]"));
    }
    if let Some(Nlink { base, delta }) = marks.nlink {
        let base = if base == NlinkBase::Upper { 'U' } else { 'L' };
        push(text, format_args!(" [nlink {base}{delta:+}]"));
    }
    if let Some(nlink) = marks.lower_nlink {
        push(text, format_args!(" [lower nlink {nlink}]"));
    }
    if marks.origin.is_some() {
        text.push_str(" [origin]");
    }
    if let Some(name) = &marks.unknown {
        push(text, format_args!(" [unknown {name}]"));
    }
}

fn push(text: &mut String, args: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    text.write_fmt(args).unwrap_or_default();
}

/// Short content as it is, long content as length and FNV-1a hash.
fn content(bytes: &[u8]) -> String {
    if bytes.len() <= SHOWN {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    format!("({} bytes {hash:016x})", bytes.len())
}
