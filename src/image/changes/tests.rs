use super::*;
use crate::attr::Attr;
use std::os::fd::BorrowedFd;

/// A file of which only the places of data and holes are known.
#[derive(Debug)]
struct Holes {
    /// Data, in order.
    data: Vec<(u64, u64)>,
    size: u64,
}

impl Data for Holes {
    fn seek(&self, offset: u64, what: Seek) -> Result<u64> {
        if offset >= self.size {
            return Err(Errno::ENXIO.into());
        }
        let next = self.data.partition_point(|(_, end)| *end <= offset);
        let inside = self.data.get(next).filter(|(start, _)| *start <= offset);
        match (what, inside) {
            (Seek::Data, Some(_)) | (Seek::Hole, None) => Ok(offset),
            (Seek::Hole, Some((_, end))) => Ok(*end),
            (Seek::Data, None) => {
                let found = self.data.get(next).map(|(start, _)| *start);
                found.ok_or_else(|| Errno::ENXIO.into())
            }
        }
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> Result<usize> {
        unreachable!()
    }
    fn write_at(&self, _: &[u8], _: u64) -> Result<usize> {
        unreachable!()
    }
    fn set_len(&self, _: u64) -> Result<()> {
        unreachable!()
    }
    fn sync(&self, _: bool) -> Result<()> {
        unreachable!()
    }
    fn allocate(&self, _: i32, _: u64, _: u64) -> Result<()> {
        unreachable!()
    }
    fn attr(&self) -> Result<Attr> {
        unreachable!()
    }
    fn copy_from(&self, _: &dyn Data, _: u64, _: u64, _: u64) -> Result<u64> {
        unreachable!()
    }
    fn reflink_from(&self, _: &dyn Data) -> Result<()> {
        unreachable!()
    }
    fn removexattr(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EBADF.into())
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        unreachable!()
    }
}

const K: u64 = 1 << 10;

fn found(size: u64, data: &[(u64, u64)]) -> Option<Vec<(u64, u64)>> {
    let pieces = pieces(&Holes { data: data.to_vec(), size }, size).unwrap();
    pieces.map(|pieces| pieces.iter().map(|at| (at.offset, at.offset + at.len)).collect())
}

#[test]
fn holes_that_are_worth_it_are_told() {
    // None, or too small ones: at the start, in the middle, at the end.
    assert_eq!(found(0, &[]), None);
    assert_eq!(found(63 * K, &[]), None);
    assert_eq!(found(900 * K, &[(0, 900 * K)]), None);
    assert_eq!(found(900 * K, &[(60 * K, 300 * K), (360 * K, 840 * K)]), None);
    // All of it, and each of the three.
    assert_eq!(found(64 * K, &[]), Some(vec![]));
    assert_eq!(found(900 * K, &[(64 * K, 900 * K)]), Some(vec![(64 * K, 900 * K)]));
    let middle = [(0, 100 * K), (164 * K, 900 * K)];
    assert_eq!(found(900 * K, &middle), Some(middle.to_vec()));
    assert_eq!(found(900 * K, &[(0, 836 * K)]), Some(vec![(0, 836 * K)]));
    // Whole blocks, but for the end of the file.
    let odd = [(70 * K + 1, 80 * K + 7), (200 * K + 3, 200 * K + 5)];
    let whole = vec![(68 * K, 84 * K), (200 * K, 200 * K + 5)];
    assert_eq!(found(200 * K + 5, &odd), Some(whole));
    // Pieces that share a block.
    let near = [(100 * K, 100 * K + 1), (100 * K + 2, 100 * K + 3)];
    assert_eq!(found(1 << 40, &near), Some(vec![(100 * K, 104 * K)]));
}

#[test]
fn there_are_never_more_pieces_than_readers_take() {
    let every = |step: u64, count: u64| -> Vec<(u64, u64)> {
        (0..count).map(|n| (n * step, n * step + 4 * K)).collect()
    };
    let step = 128 * K;
    let all = every(step, PIECES as u64);
    assert_eq!(found(step * PIECES as u64, &all), Some(all));
    // One more: only holes that are larger count, and there is but the one at the end.
    let all = every(step, PIECES as u64 + 1);
    let end = step * PIECES as u64 + 4 * K;
    assert_eq!(found(end + 256 * K, &all), Some(vec![(0, end)]));
    assert_eq!(found(end, &all), None);
    // The longest map there can be is one that readers take.
    let far = (i64::MAX as u64).next_multiple_of(4 * K) - (PIECES as u64 + 1) * step;
    let pieces: Vec<Piece> =
        (0..PIECES as u64).map(|n| Piece { offset: far + n * step, len: 4 * K }).collect();
    let entry = Entry { what: What::File(i64::MAX as u64), ..whiteout(b"file") };
    Writer::new(Vec::new()).start(&entry, Some(&pieces)).unwrap();
}
