//! For tests: archives by other hands, and the whole of one read at once.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use super::{Entry, Limits, Reader, What};
use crate::errno::Result;

/// An entry with its content: holes are zeros.
pub(super) type Item = (Entry, Vec<u8>);

/// Hands out its bytes in pieces of odd sizes.
struct Dribble<'a>(&'a [u8], usize);

impl Read for Dribble<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1 * 7 % 1009 + 1;
        let n = self.1.min(buf.len());
        self.0.read(&mut buf[..n])
    }
}

/// Reads all of `stream`, and checks that data and tape together are the stream.
pub(super) fn read_all(stream: &[u8]) -> Result<Vec<Item>> {
    let items = read_with(stream, Limits::default(), usize::MAX)?;
    // The same with half of the data skipped.
    let skipped = read_with(stream, Limits::default(), 10)?;
    assert_eq!(items.len(), skipped.len());
    Ok(items)
}

/// Reads all of `stream`, of each entry no more than about `most` bytes.
pub(super) fn read_with(stream: &[u8], limits: Limits, most: usize) -> Result<Vec<Item>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let tape = log.clone();
    let mut reader = Reader::new(Dribble(stream, 1), limits);
    reader.set_tape(Box::new(move |bytes| {
        assert!(!bytes.is_empty());
        tape.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }));
    let mut items = Vec::new();
    while let Some(entry) = reader.next()? {
        let size = if let What::File(size) = entry.what { size } else { 0 };
        let mut content = vec![0; usize::try_from(size.min(1 << 27)).unwrap()];
        let (mut buf, mut end, mut got) = ([0; 777], 0, 0);
        while got < most {
            let Some((offset, n)) = reader.data(&mut buf)? else { break };
            assert!(offset >= end && offset + n as u64 <= size, "pieces grow and stay inside");
            end = offset + n as u64;
            got += n;
            let at = usize::try_from(offset).unwrap();
            if let Some(room) = content.get_mut(at..at + n) {
                room.copy_from_slice(&buf[..n]);
            }
            log.lock().unwrap().extend_from_slice(&buf[..n]);
        }
        items.push((entry, content));
    }
    assert_eq!(reader.next()?, None, "the end stays the end");
    reader.finish()?;
    assert!(*log.lock().unwrap() == stream, "data and tape together are not the stream");
    Ok(items)
}

/// The names and types of all entries, one a line.
pub(super) fn summary(items: &[Item]) -> String {
    let line = |(entry, _): &Item| format!("{} {:?}\n", super::shown(&entry.path), entry.what);
    items.iter().map(line).collect::<Vec<_>>().concat()
}

/// What a command writes to its standard output, run in `dir`.
pub(super) fn output(dir: &Path, command: &str, args: &[&str]) -> Vec<u8> {
    let run = Command::new(command)
        .args(args)
        .current_dir(dir)
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(run.status.success(), "{command} {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    run.stdout
}

/// The archive that a script for python's tarfile makes: `t` is the open archive, and
/// `add(name, data=b"", **fields)` adds an entry to it.
pub(super) fn python(format: &str, script: &str) -> Vec<u8> {
    let program = format!(
        r#"
import tarfile, io, sys
out = io.BytesIO()
t = tarfile.open(fileobj=out, mode="w", format=tarfile.{format}_FORMAT,
                 encoding="utf-8", errors="surrogateescape")
def add(name, data=b"", pax=None, **fields):
    i = tarfile.TarInfo(name)
    i.size = len(data)
    i.pax_headers = pax or {{}}
    for key, value in fields.items(): setattr(i, key, value)
    t.addfile(i, io.BytesIO(data))
{script}
t.close()
sys.stdout.buffer.write(out.getvalue())
"#
    );
    output(Path::new("/"), "python3", &["-c", &program])
}

/// A header block of the ustar form, its checksum not yet right.
pub(super) fn header(path: &[u8], flag: u8, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    block[..path.len()].copy_from_slice(path);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block
}

/// The block with its checksum.
pub(super) fn sealed(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

/// An entry with its data, padded.
pub(super) fn entry(path: &[u8], flag: u8, data: &[u8]) -> Vec<u8> {
    let mut all = sealed(header(path, flag, data.len() as u64)).to_vec();
    all.extend_from_slice(data);
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

/// An extended header of these records.
pub(super) fn records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (key, value) in records {
        let body = 3 + key.len() + value.len();
        let mut len = body + 1;
        while len != body + len.to_string().len() {
            len = body + len.to_string().len();
        }
        all.extend_from_slice(format!("{len} {key}=").as_bytes());
        all.extend_from_slice(value);
        all.push(b'\n');
    }
    entry(b"PaxHeaders/x", b'x', &all)
}

/// Two blocks of zeros.
pub(super) const END: [u8; 1024] = [0; 1024];
