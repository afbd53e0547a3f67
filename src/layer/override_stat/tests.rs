//! What a layer shows of objects whose owners are told by an attribute, and what it stores.

use std::sync::Arc;

use super::*;
use crate::attr::SetAttr;
use crate::layer::mem::MemLayer;
use crate::layer::{Entry, New, Upper, What};

const NAME: &[u8] = b"user.containers.override_stat";

fn new(what: What<'_>, perm: u16) -> New<'_> {
    New { what, perm, uid: 7, gid: 8, xattrs: &[], marks: &[] }
}

fn name(name: &[u8]) -> Name<'_> {
    Name::new(name).unwrap()
}

fn found(layer: &dyn Layer, at: &[u8]) -> Result<Entry> {
    match layer.lookup(layer.root(), name(at))? {
        Lookup::Found(entry) => {
            layer.forget(entry.id);
            Ok(entry)
        }
        other => panic!("{other:?}"),
    }
}

/// A file of a lower layer with the attribute.
fn told(mem: &MemLayer, at: &[u8], content: &[u8], value: &str) {
    let xattrs = [(NAME.to_vec(), value.as_bytes().to_vec())];
    let file = New { xattrs: &xattrs, ..new(What::File, 0o600) };
    mem.put_file(mem.root(), name(at), content, &file).unwrap();
}

#[test]
fn a_lower_layer_shows_what_its_attributes_tell() {
    let mem = MemLayer::new(1);
    told(&mem, b"file", b"12345", "0:5:4755:file");
    told(&mem, b"null", b"", "0:0:666:char-1-3");
    told(&mem, b"link", b"to/where", "1:1:777:symlink");
    told(&mem, b"wrong", b"", "nobody");
    mem.put(mem.root(), name(b"plain"), &new(What::File, 0o640)).unwrap();
    let layer = Overridden::new(Arc::clone(&mem) as Arc<dyn Layer>, Form::Containers);
    let seen = |at: &[u8]| {
        let attr = found(&*layer, at).unwrap().attr;
        assert_eq!(layer.attr(found(&*layer, at).unwrap().id).unwrap(), attr);
        (attr.kind, attr.uid, attr.gid, attr.perm, attr.size, attr.rdev)
    };
    assert_eq!(seen(b"file"), (Kind::File, 0, 5, 0o4755, 5, 0));
    assert_eq!(seen(b"null"), (Kind::Char, 0, 0, 0o666, 0, rustix::fs::makedev(1, 3)));
    assert_eq!(seen(b"link"), (Kind::Symlink, 1, 1, 0o777, 8, 0));
    assert_eq!(seen(b"plain"), (Kind::File, 7, 8, 0o640, 0, 0));
    assert_eq!(layer.readlink(found(&*layer, b"link").unwrap().id).unwrap(), b"to/where");
    assert!(layer.listxattr(found(&*layer, b"file").unwrap().id).unwrap().is_empty());
    // Not shown as somebody else's: said, and by name.
    let error = found(&*layer, b"wrong").unwrap_err();
    assert_eq!(error.errno(), Errno::EIO);
    assert!(error.to_string().contains("override_stat is 'nobody'"), "{error}");
    assert_eq!(mem.live_refs(), 0);
    let mut kinds = Vec::new();
    let listed = layer.readdir(layer.root(), &mut |item| {
        kinds.push((item.name.as_bytes().to_vec(), item.kind));
        Ok(())
    });
    assert_eq!(listed.unwrap_err().errno(), Errno::EIO);
    assert!(kinds.contains(&(b"link".to_vec(), Some(Kind::Symlink))), "{kinds:?}");
    assert!(kinds.contains(&(b"null".to_vec(), Some(Kind::Char))), "{kinds:?}");
}

#[test]
fn what_is_stored_belongs_to_the_server_and_can_be_used_by_it() {
    let mem = MemLayer::new(1);
    let upper = OverriddenUpper::new(Arc::clone(&mem) as Arc<dyn Upper>, Form::Containers, (9, 9));
    let upper = upper.unwrap();
    assert_eq!(form_of(&*mem).unwrap(), Some(Form::Containers), "the root tells");
    let device = rustix::fs::makedev(8, 1);
    for (at, what) in [
        (&b"file"[..], What::File),
        (b"dir", What::Dir),
        (b"block", What::Node(Kind::Block, device)),
        (b"zero", What::Node(Kind::Char, 0)),
        (b"fifo", What::Node(Kind::Fifo, 0)),
    ] {
        let made = upper.create(upper.root(), name(at), &new(what, 0o4011)).unwrap();
        assert_eq!((made.attr.uid, made.attr.gid, made.attr.perm), (7, 8, 0o4011));
        upper.forget(made.id);
        assert_eq!(found(&*upper, at).unwrap().attr, made.attr);
        let real = found(&*mem, at).unwrap().attr;
        let (kind, perm) = if what == What::Dir { (Kind::Dir, 0o711) } else { (Kind::File, 0o611) };
        assert_eq!((real.uid, real.gid, real.perm, real.kind), (9, 9, perm, kind));
    }
    assert_eq!(found(&*upper, b"block").unwrap().attr.rdev, device);
    let file = found(&*upper, b"file").unwrap().id;
    let set = SetAttr { uid: Some(1), ..SetAttr::default() };
    let attr = upper.setattr(file, &set).unwrap();
    assert_eq!((attr.uid, attr.gid, attr.perm), (1, 8, 0o011), "set-id bits go with the owner");
    let value = mem.getxattr(file, NAME).unwrap().unwrap();
    assert_eq!(value, b"1:8:0011:file");
    assert_eq!(mem.live_refs(), 0);
}

#[test]
fn capabilities_go_when_the_content_changes() {
    const CAPABILITY: &[u8] = b"security.capability";
    let mem = MemLayer::new(1);
    let upper = OverriddenUpper::new(mem, Form::Containers, (9, 9)).unwrap();
    let made = upper.create(upper.root(), name(b"f"), &new(What::File, 0o755)).unwrap();
    let has = || upper.getxattr(made.id, CAPABILITY).unwrap().is_some();
    let give = || upper.setxattr(made.id, CAPABILITY, b"cap", 0).unwrap();
    let open = upper.open_write(made.id).unwrap();
    for change in [
        (&|| open.write_at(b"x", 0).map(drop)) as &dyn Fn() -> Result<()>,
        &|| open.set_len(0),
        &|| open.allocate(0, 0, 9),
        &|| upper.setattr(made.id, &SetAttr { size: Some(1), ..SetAttr::default() }).map(drop),
        &|| upper.setattr(made.id, &SetAttr { gid: Some(1), ..SetAttr::default() }).map(drop),
    ] {
        give();
        assert!(has());
        change().unwrap();
        assert!(!has());
    }
    give();
    upper.setattr(made.id, &SetAttr { perm: Some(0o700), ..SetAttr::default() }).unwrap();
    assert!(has(), "chmod leaves them");
    upper.forget(made.id);
}
