//! The driver without a kernel: requests through a socket that keeps their boundaries.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::layer::fault::{Fault, FaultLayer};
use crate::layer::mem::MemLayer;
use crate::union::{Options, Stack};

fn one_thread() -> MountConfig {
    MountConfig { threads: 1, ..MountConfig::default() }
}

fn union() -> Arc<Union> {
    over(None)
}

fn over(upper: Option<Arc<dyn crate::layer::Upper>>) -> Arc<Union> {
    let stack = Stack { upper, lowers: vec![MemLayer::new(1)] };
    Arc::new(Union::new(stack, Options::default()).unwrap())
}

/// Two ends of a connection; the kernel's is the first.
fn ends() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn ask(kernel: &OwnedFd, opcode: u32, unique: u64, body: &[u8]) {
    let len = u32::try_from(size_of::<wire::InHeader>() + body.len()).unwrap();
    let header = wire::InHeader { len, opcode, unique, nodeid: 1, ..Default::default() };
    rustix::io::write(kernel, &[header.as_bytes(), body].concat()).unwrap();
}

fn answer(kernel: &OwnedFd) -> (wire::OutHeader, Vec<u8>) {
    let mut bytes = vec![0; 4096];
    let len = rustix::io::read(kernel, &mut *bytes).unwrap();
    let (header, body) = wire::OutHeader::read_from_prefix(&bytes[..len]).unwrap();
    (header, body.to_vec())
}

fn init(major: u32, minor: u32) -> Vec<u8> {
    let init = wire::InitIn { major, minor, max_readahead: 0, flags: u32::MAX };
    [init.as_bytes(), wire::InitExt { flags2: u32::MAX, unused: [0; 11] }.as_bytes()].concat()
}

#[test]
fn a_newer_major_version_is_asked_to_speak_ours() {
    let (kernel, ours) = ends();
    ask(&kernel, wire::opcode::INIT, 1, &init(8, 0));
    ask(&kernel, wire::opcode::INIT, 2, &init(7, 36));
    let server = Server::start(union(), ours, &one_thread()).unwrap();
    let (_, body) = answer(&kernel);
    assert_eq!(wire::InitOut::read_from_prefix(&body).unwrap().0.major, 7);
    let (header, body) = answer(&kernel);
    let (out, _) = wire::InitOut::read_from_prefix(&body).unwrap();
    assert_eq!((header.error, out.minor), (0, 36));
    assert_eq!(server.service.agreed.minor, 36);
}

#[test]
fn an_old_kernel_is_refused() {
    let (kernel, ours) = ends();
    ask(&kernel, wire::opcode::INIT, 1, &init(7, 31));
    let error = Server::start(union(), ours, &one_thread()).unwrap_err();
    assert!(error.to_string().contains("7.31"), "{error}");
    assert_eq!(answer(&kernel).0.error, -libc::EIO);
    let (kernel, ours) = ends();
    ask(&kernel, wire::opcode::GETATTR, 1, &[0; 16]);
    assert!(Server::start(union(), ours, &one_thread()).is_err());
}

#[test]
fn what_cannot_be_read_is_refused_and_the_rest_served() {
    let (kernel, ours) = ends();
    ask(&kernel, wire::opcode::INIT, 1, &init(7, 45));
    let server = Server::start(union(), ours, &one_thread()).unwrap();
    answer(&kernel);
    let serving = std::thread::spawn(|| server.run());
    // A name without an end; bytes that are no request; an operation that nobody has heard of.
    ask(&kernel, wire::opcode::LOOKUP, 2, b"name");
    assert_eq!(answer(&kernel).0.error, -libc::EIO);
    rustix::io::write(&kernel, b"short").unwrap();
    ask(&kernel, 4000, 3, &[]);
    assert_eq!(answer(&kernel).0.error, -libc::ENOSYS);
    // Nothing can be removed where there is nothing to write to.
    ask(&kernel, wire::opcode::RMDIR, 4, b"missing\0");
    assert_eq!(answer(&kernel).0.error, -libc::EROFS);
    ask(&kernel, wire::opcode::GETATTR, 5, &[0; 16]);
    let (header, body) = answer(&kernel);
    assert_eq!((header.error, header.unique, body.len()), (0, 5, size_of::<wire::AttrOut>()));
    ask(&kernel, wire::opcode::DESTROY, 6, &[]);
    assert_eq!(answer(&kernel).0.error, 0);
    serving.join().unwrap().unwrap();
}

#[test]
fn what_cannot_be_made_durable_is_no_more_held_than_known_to_the_kernel() {
    let (kernel, ours) = ends();
    ask(&kernel, wire::opcode::INIT, 1, &init(7, 45));
    let fault = FaultLayer::new(MemLayer::new(2));
    let union = over(Some(fault.clone()));
    let config = MountConfig { sync: Syncing::All, ..one_thread() };
    let server = Server::start(union.clone(), ours, &config).unwrap();
    answer(&kernel);
    let serving = std::thread::spawn(|| server.run());
    let dir = |name: &str| [&[0; 8], name.as_bytes(), b"\0"].concat();
    let flags = libc::O_CREAT | libc::O_WRONLY;
    let file = |name: &str| [&flags.to_ne_bytes()[..], &[0; 12], name.as_bytes(), b"\0"].concat();
    for (opcode, body) in
        [(wire::opcode::MKDIR, &dir as &dyn Fn(&str) -> Vec<u8>), (wire::opcode::CREATE, &file)]
    {
        let before = union.node_count();
        fault.arm(Fault::None);
        ask(&kernel, opcode, 2, &body(&format!("made{opcode}")));
        assert_eq!(answer(&kernel).0.error, 0);
        assert_eq!(union.node_count(), before + 1);
        // The last thing done for it was to sync.
        fault.arm(Fault::Fail(fault.count(), Errno::ENOSPC));
        ask(&kernel, opcode, 3, &body(&format!("lost{opcode}")));
        assert_eq!(answer(&kernel).0.error, -libc::ENOSPC);
        assert_eq!(union.node_count(), before + 1);
    }
    ask(&kernel, wire::opcode::DESTROY, 9, &[]);
    assert_eq!(answer(&kernel).0.error, 0);
    serving.join().unwrap().unwrap();
}
