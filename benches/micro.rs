//! What the union and the archive reader take by themselves: no kernel, no disk, layers in memory.
//! `cargo bench` runs them; what users feel is measured by `plyfs bench`.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark that cannot go on fails here; criterion's macros write a function"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use plyfs::image::tar::{Limits, Reader};
use plyfs::image::unpack::whiteout::whiteout;
use plyfs::layer::mem::MemLayer;
use plyfs::layer::{Layer, New, Upper, What};
use plyfs::name::Name;
use plyfs::union::{DirEntry, NodeId, Options, Stack, Union};

/// How many names each layer has in the directory that all of them have.
const NAMES: usize = 200;

fn new(what: What<'_>) -> New<'_> {
    New { what, perm: 0o755, uid: 0, gid: 0, xattrs: &[], marks: &[] }
}

fn text(layer: usize, number: usize) -> String {
    format!("layer{layer:03}-entry{number:04}")
}

/// A union of so many layers with one directory in common, and that directory.
fn union(layers: usize) -> (Union, NodeId) {
    let upper = MemLayer::new(1);
    let lowers = (0..layers).map(|layer| {
        let mem = upper.beside();
        let dir = mem.put(mem.root(), Name::new(b"shared").unwrap(), &new(What::Dir)).unwrap();
        for number in 0..NAMES {
            let name = text(layer, number);
            let name = Name::new(name.as_bytes()).unwrap();
            mem.put_file(dir, name, b"content", &new(What::File)).unwrap();
        }
        mem as Arc<dyn Layer>
    });
    let lowers = lowers.collect();
    let stack = Stack { upper: Some(Arc::clone(&upper) as Arc<dyn Upper>), lowers };
    let union = Union::new(stack, Options::default()).unwrap();
    let found = union.lookup(union.root(), Name::new(b"shared").unwrap()).unwrap();
    let dir = found.unwrap().node;
    (union, dir)
}

/// A name that the lowest of the layers has, and one that none has.
fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    for layers in [1, 5, 20, 120] {
        let (union, dir) = union(layers);
        for (what, name) in [("lowest", text(layers - 1, 7)), ("absent", "absent".to_owned())] {
            group.bench_function(BenchmarkId::new(what, layers), |bencher| {
                bencher.iter(|| {
                    let name = Name::new(black_box(name.as_bytes())).unwrap();
                    if let Some(found) = union.lookup(dir, name).unwrap() {
                        union.forget(found.node, 1);
                    }
                });
            });
        }
    }
    group.finish();
}

/// The whole of a directory that all layers have: a merge, when there are several.
fn listing(criterion: &mut Criterion) {
    for (group, counts) in [("readdir", &[1][..]), ("merge", &[2, 5, 20][..])] {
        let mut group = criterion.benchmark_group(group);
        for &layers in counts {
            let (union, dir) = union(layers);
            group.throughput(Throughput::Elements((layers * NAMES) as u64));
            group.bench_function(BenchmarkId::from_parameter(layers), |bencher| {
                bencher.iter(|| {
                    let mut seen = 0;
                    let mut each = |_: &DirEntry<'_>| {
                        seen += 1;
                        true
                    };
                    union.readdir(dir, 0, &mut each).unwrap();
                    assert_eq!(seen, layers * NAMES + 2);
                });
            });
        }
        group.finish();
    }
}

/// The names of an archive's entries told apart: what they are, and whiteouts of what.
fn whiteouts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("whiteout");
    for name in ["libssl.so.3", ".wh.libssl.so.3", ".wh..wh..opq"] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| whiteout(black_box(name.as_bytes())).unwrap());
        });
    }
    group.finish();
}

/// An archive of a thousand small files, read to its end; long paths go into extended headers.
fn archive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tar");
    for (what, dir) in [("short paths", "usr/lib"), ("long paths", &*"deep/".repeat(40))] {
        let mut builder = tar::Builder::new(Vec::new());
        for number in 0..1000 {
            let mut header = tar::Header::new_gnu();
            header.set_size(200);
            header.set_mode(0o644);
            let path = format!("{dir}/file{number}");
            builder.append_data(&mut header, path, &[7; 200][..]).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        group.throughput(Throughput::Elements(1000));
        group.bench_function(what, |bencher| {
            bencher.iter(|| {
                let mut reader = Reader::new(black_box(bytes.as_slice()), Limits::default());
                let (mut entries, mut buffer) = (0, [0; 4096]);
                while reader.next().unwrap().is_some() {
                    entries += 1;
                    while reader.data(&mut buffer).unwrap().is_some() {}
                }
                assert_eq!(entries, 1000);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, listing, whiteouts, archive);
criterion_main!(benches);
