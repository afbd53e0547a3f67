//! Paths of an archive as names from the layer's root.

/// The names in `path`, taken apart as umoci does before it looks at any directory: `.` and empty
/// names are nothing, `..` takes back the name before it and stops at the root.
pub(super) fn clean(path: &[u8]) -> Vec<&[u8]> {
    let mut names = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names
}

/// The names of a link's target that are still to be walked, the last one first.
pub(super) fn steps(target: &[u8]) -> impl Iterator<Item = Box<[u8]>> {
    let names = target.rsplit(|&byte| byte == b'/');
    names.filter(|&name| !matches!(name, b"" | b".")).map(Box::from)
}

#[cfg(test)]
mod tests;
