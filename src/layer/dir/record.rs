//! The marks of one object as a line of text: what the sidecar keeps, and nothing but that.
//!
//! ```text
//!     plyfs1 plyfs.ino=1234 nlink=L+0 redirect=/a%20b
//! ```

use crate::errno::{Errno, Error, Result};

/// What a record begins with: its form. A reader that does not know it refuses the record.
const FORM: &[u8] = b"plyfs1";

/// Marks by the name after the prefix, each at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record(pub(super) Vec<(Vec<u8>, Vec<u8>)>);

impl Record {
    /// Sets a mark.
    pub(super) fn set(&mut self, suffix: &[u8], value: &[u8]) {
        self.take(suffix);
        self.0.push((suffix.to_vec(), value.to_vec()));
    }

    /// Takes a mark out; whether it was there.
    pub(super) fn take(&mut self, suffix: &[u8]) -> bool {
        let before = self.0.len();
        self.0.retain(|(name, _)| name != suffix);
        self.0.len() < before
    }

    /// The text.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut text = FORM.to_vec();
        for (name, value) in &self.0 {
            text.push(b' ');
            escape(name, &mut text);
            text.push(b'=');
            escape(value, &mut text);
        }
        text
    }

    /// Reads a text.
    ///
    /// # Errors
    /// `EIO` if it is of another form, as one of a later version may be.
    pub(super) fn decode(text: &[u8]) -> Result<Self> {
        let mut words = text.split(|&byte| byte == b' ');
        let known = words.next() == Some(FORM);
        let marks = words.map(|word| {
            let at = word.iter().position(|&byte| byte == b'=')?;
            let (name, value) = word.split_at_checked(at)?;
            Some((unescape(name)?, unescape(value.get(1..)?)?))
        });
        match marks.collect::<Option<Vec<_>>>().filter(|_| known) {
            Some(marks) => Ok(Self(marks)),
            None => Err(Error::new(Errno::EIO, "marks in the work directory of no known form")),
        }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'%' && byte != b'='
}

fn escape(bytes: &[u8], text: &mut Vec<u8>) {
    for &byte in bytes {
        if is_plain(byte) {
            text.push(byte);
        } else {
            text.extend_from_slice(format!("%{byte:02x}").as_bytes());
        }
    }
}

fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let &[high, low] = digits else { return None };
            bytes.push(u8::try_from(digit(high)? << 4 | digit(low)?).ok()?);
            rest = after;
        } else if is_plain(byte) {
            bytes.push(byte);
        } else {
            return None;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
