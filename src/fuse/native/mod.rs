//! Our own driver: a loop over /dev/fuse.
//!
//! ```text
//!     wire        structures and numbers of the ABI
//!     request     bytes -> what is asked, pure
//!     negotiate   what the kernel offers -> what is agreed upon, pure
//!     serve       what is asked -> the handlers -> the reply
//!     reply       the reply, encoded into a buffer of the thread's
//!     notify      what the kernel is told unasked
//!     interrupt   requests whose askers may be killed meanwhile
//! ```
//!
//! Each thread reads from a descriptor of its own, and answers there. The way of a request about
//! names and attributes takes no lock and no memory of the driver's. A node id on the wire is the
//! union's own number of the node, except the root's, which is 1: `st_ino` is another matter. A
//! file handle is the access mode, so that whoever takes a connection over can make it anew from
//! what the request says.

mod interrupt;
mod negotiate;
mod notify;
mod reply;
pub mod request;
mod serve;
pub mod wire;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno as Raw;

use super::lane::{Lane, Place};
use super::{MountConfig, Syncing};
use crate::errno::{Context, Errno, Error, Result};
use crate::sys::fuse_device;
use crate::union::Union;
use interrupt::Interrupts;
pub use negotiate::Agreed;
use negotiate::{MAX_WRITE, negotiate};
pub use notify::Notifier;
use reply::{Reply, SMALL};
use request::{Op, Request};

/// Room for a request: the largest write and what stands before it.
const REQUEST: usize = MAX_WRITE as usize + 4096;

/// A connection that is agreed upon, and served by [`Server::run`].
#[derive(Debug)]
pub(super) struct Server {
    service: Arc<Service>,
    connection: Arc<OwnedFd>,
    threads: usize,
}

/// What all threads share.
#[derive(Debug)]
struct Service {
    union: Arc<Union>,
    agreed: Agreed,
    lane: Arc<Lane>,
    interrupts: Interrupts,
    /// How long the kernel may keep names and attributes.
    ttl: Duration,
    /// What is made durable before a change is answered.
    sync: Syncing,
}

/// Whether a thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Request,
    End,
}

impl Server {
    /// Agrees with the kernel on how to talk; as if it did not offer the flags in
    /// `config.withheld`, nor ACLs where the union has none.
    ///
    /// # Errors
    /// `EIO` where that is impossible.
    pub(super) fn start(
        union: Arc<Union>,
        connection: OwnedFd,
        config: &MountConfig,
    ) -> Result<Self> {
        let threads = config.threads.max(1);
        let withheld = config.withheld | if union.has_acls() { 0 } else { wire::init::POSIX_ACL };
        let mut buffer = vec![0; REQUEST];
        let agreed = handshake(&connection, &mut buffer, withheld)
            .context(|| "the kernel and plyfs do not agree on a FUSE protocol")?;
        let (lane, interrupts) = (Lane::new(threads), Interrupts::default());
        let ttl = config.timeout.unwrap_or(reply::FOR_GOOD);
        let sync = config.sync;
        let service = Arc::new(Service { union, agreed, lane, interrupts, ttl, sync });
        Ok(Self { service, connection: Arc::new(connection), threads })
    }

    /// What tells the kernel that something is no longer so.
    pub(super) fn notifier(&self) -> Notifier {
        Notifier::new(&self.connection, &self.service.union, self.service.agreed)
    }

    /// Serves until the mount and its last user have gone.
    ///
    /// # Errors
    /// What a thread could not go on for.
    pub(super) fn run(self) -> Result<()> {
        let Self { service, connection, threads } = self;
        std::thread::scope(|scope| {
            let mut others = Vec::new();
            for number in 1..threads {
                // A descriptor a thread keeps the threads from waking each other; it needs the
                // device itself, which not everybody may open.
                let device = fuse_device::cloned(connection.as_fd()).map(Arc::new);
                let device = device.unwrap_or_else(|_| connection.clone());
                let service = &service;
                let thread = std::thread::Builder::new().name(format!("plyfs-fuse-{number}"));
                match thread.spawn_scoped(scope, move || service.listen(&device)) {
                    Ok(thread) => others.push(thread),
                    Err(error) => {
                        tracing::warn!("one thread fewer serves: {error}");
                        service.lane.lose_thread();
                    }
                }
            }
            let mut result = service.listen(&connection);
            for thread in others {
                let joined = thread.join();
                let ended = joined.unwrap_or_else(|_| Err(crate::bug!("a thread panicked")));
                result = result.and(ended);
            }
            // What still runs has threads of its own, and nobody to answer: the layers are in use
            // until it has ended.
            service.interrupts.end();
            service.lane.wait();
            result.context(|| "serving ended with an error")
        })
    }
}

/// Answers INIT.
fn handshake(connection: &OwnedFd, buffer: &mut [u8], withheld: u64) -> Result<Agreed> {
    let mut reply = Reply::with_room(SMALL);
    loop {
        let len = match rustix::io::read(connection, &mut *buffer) {
            Ok(len) => len,
            Err(Raw::INTR | Raw::AGAIN) => continue,
            Err(error) => return Err(error.into()),
        };
        let bytes = buffer.get(..len).unwrap_or_default();
        let wrong = || Error::new(Errno::EIO, "the first request is not INIT");
        let request = Request::parse(bytes, request::Layout::default()).map_err(|_| wrong())?;
        let Op::Init(offer) = request.op else { return Err(wrong()) };
        reply.clear();
        if offer.version.0 > wire::MAJOR {
            reply.put(&negotiate::our_version())?;
            send(connection, reply.finish(request.unique))?;
            continue;
        }
        return match negotiate(&offer, withheld) {
            Ok((agreed, out)) => {
                reply.put(&out)?;
                send(connection, reply.finish(request.unique))?;
                Ok(agreed)
            }
            Err(error) => {
                send(connection, reply.refuse(request.unique, Errno::EIO))?;
                Err(error)
            }
        };
    }
}

/// Writes one reply.
fn send(device: &OwnedFd, reply: &[u8]) -> Result<()> {
    match rustix::io::write(device, reply) {
        // Whoever asked has gone, or all of the connection has.
        Ok(_) | Err(Raw::NOENT | Raw::NODEV) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Service {
    /// Serves what comes to one descriptor.
    fn listen(self: &Arc<Self>, device: &Arc<OwnedFd>) -> Result<()> {
        let result = self.listen_until(device);
        self.lane.lose_thread();
        result
    }

    fn listen_until(self: &Arc<Self>, device: &Arc<OwnedFd>) -> Result<()> {
        let mut buffer = vec![0; REQUEST];
        let mut reply = Reply::with_room(MAX_WRITE as usize).kept_for(self.ttl);
        loop {
            let len = match rustix::io::read(&**device, &mut *buffer) {
                Ok(len) => len,
                // ENOENT: the request was taken back before it was read.
                Err(Raw::INTR | Raw::AGAIN | Raw::NOENT) => continue,
                // Unmounted; aborted through fusectl.
                Err(Raw::NODEV | Raw::CONNABORTED) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let bytes = buffer.get(..len).unwrap_or_default();
            match self.receive(device, bytes, &mut reply) {
                Ok(Next::Request) => {}
                Ok(Next::End) => return Ok(()),
                // The others may still be served.
                Err(error) => tracing::error!("a reply was not taken: {error}"),
            }
        }
    }

    /// Takes a request and sees to it that it is answered.
    fn receive(
        self: &Arc<Self>,
        device: &Arc<OwnedFd>,
        bytes: &[u8],
        reply: &mut Reply,
    ) -> Result<Next> {
        let request = match Request::parse(bytes, self.agreed.layout()) {
            Ok(request) => request,
            Err(malformed) => {
                tracing::error!(len = bytes.len(), "a request that cannot be read");
                if let Some(unique) = malformed.unique {
                    send(device, reply.refuse(unique, Errno::EIO))?;
                }
                return Ok(Next::Request);
            }
        };
        match request.op {
            Op::Forget { .. } | Op::BatchForget(_) => self.forget(&request),
            Op::Interrupt { unique } => self.interrupts.interrupt(unique),
            Op::Destroy => {
                send(device, {
                    reply.clear();
                    reply.finish(request.unique)
                })?;
                return Ok(Next::End);
            }
            // Refused once and for all: the kernel then opens directories by itself, and keeps
            // listings.
            Op::OpenDir
            // Likewise: it is asked for each file of which a program wants to know when it was
            // made, which programs in Rust do with every stat. All else that statx(2) tells the
            // kernel has.
            | Op::StatX
            | Op::Init(_)
            | Op::Unknown(_) => send(device, reply.refuse(request.unique, Errno::ENOSYS))?,
            _ if self.may_take_long(&request.op) => match self.lane.place() {
                Place::Here(_here) => self.answer_long(device, &request, reply)?,
                Place::Elsewhere(elsewhere) => {
                    self.hand_over(device, (bytes, &request), reply, elsewhere)?;
                }
            },
            _ => self.answer(device, &request, reply)?,
        }
        Ok(Next::Request)
    }

    /// Has another thread answer, so that this one can read on; where there can be none, answers.
    fn hand_over(
        self: &Arc<Self>,
        device: &Arc<OwnedFd>,
        (bytes, request): (&[u8], &Request<'_>),
        reply: &mut Reply,
        elsewhere: super::lane::Counted,
    ) -> Result<()> {
        let (service, to, bytes) = (self.clone(), device.clone(), bytes.to_vec());
        let thread = std::thread::Builder::new().name("plyfs-long".to_owned());
        let started = thread.spawn(move || {
            let mut reply = Reply::with_room(SMALL).kept_for(service.ttl);
            if let Ok(request) = Request::parse(&bytes, service.agreed.layout())
                && let Err(error) = service.answer_long(&to, &request, &mut reply)
            {
                tracing::error!("a reply was not taken: {error}");
            }
            // Who waits for this one relies on the layers being free then.
            drop(service);
            drop(elsewhere);
        });
        if let Err(error) = started {
            // Late, if need be, but not refused: whoever asked has done nothing wrong.
            tracing::warn!("no thread for a long operation: {error}");
            return self.answer_long(device, request, reply);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
