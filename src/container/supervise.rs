//! A container from its start to its end, in a thread of its own: signals that plyfs hears are
//! passed on, the terminal is taken back while the command is stopped, and its status told.
//!
//! With a terminal (see [`Terminal::ours`]) the command's process group takes the foreground, as
//! a job of a shell would; what the terminal sends then goes to it alone. Without, the container
//! is a session of its own, and what the terminal sends to plyfs is passed on to the command's
//! whole process group. In both cases plyfs stops when the command was stopped, so that the shell
//! that started it hears of it.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Gid, Timespec};

use super::{Prepared, Spec, Status, mounts};
use crate::errno::{Context, Errno, Error, Result};
use crate::sys::pid1::{self, Event, Pid1, Plan, Step};
use crate::sys::process;
use crate::sys::relay::{CONTINUE, Heard, Relay};
use crate::sys::terminal::Terminal;

/// How long to wait for the signal that let us go on, after we have been stopped. If none comes,
/// we have not been.
const CONTINUED: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Runs the container.
pub(super) fn run(spec: &Spec, prepared: &Prepared) -> Result<Status> {
    let mut terminal = Terminal::ours();
    let plan = plan(spec, prepared, terminal.is_some())?;
    pid1::hear_all_but_terminal_output()?;
    let relay = Relay::install().context(|| "taking signals")?;
    let container = Pid1::start(&plan)?;
    let mut watch = Watch { container, relay, terminal: terminal.as_mut() };
    let ended = watch.until_end();
    let killed = watch.container.wait();
    let taken = terminal.as_mut().map_or(Ok(()), Terminal::take_back);
    let status = match (ended?, killed?) {
        (Some(Event::Exited(code)), _) => Status::Exited(code),
        (Some(Event::NotStarted { errno, found }), _) => {
            Status::NotStarted(not_started(spec.args.first(), errno, found))
        }
        (Some(Event::Failed(Step::Groups | Step::Group | Step::User, Errno::EINVAL)), _) => {
            return Err(prepared.identity.unmapped());
        }
        (Some(Event::Failed(step, errno)), _) => {
            return Err(errno).context(|| step.text());
        }
        (Some(Event::Signaled(signal)), _) | (_, Some(signal)) => Status::Signaled(signal),
        (_, None) => {
            let why = "process 1 of the container ended without a word";
            return Err(Error::new(Errno::EIO, why));
        }
    };
    // A terminal that was hung up cannot be taken back, nor need it be.
    drop(taken);
    Ok(status)
}

/// Enters the root, and lays out what process 1 needs.
fn plan(spec: &Spec, prepared: &Prepared, foreground: bool) -> Result<Plan> {
    // Where they may not be changed, this user namespace has a single one, too.
    let groups = process::may_set_groups().then_some(prepared.identity.groups.as_slice());
    let proc = mounts::enter(spec, &prepared.directory)?;
    let identity = &prepared.identity;
    let directory = prepared.directory.as_os_str().as_bytes();
    Ok(Plan {
        candidates: prepared.candidates.clone(),
        arguments: prepared.arguments.clone(),
        environment: prepared.environment.clone(),
        directory: CString::new(directory).map_err(|_| Errno::EINVAL)?,
        uid: identity.uid,
        gid: identity.gid,
        groups: groups.map(|groups| groups.iter().map(|&gid| Gid::from_raw(gid)).collect()),
        proc,
        foreground,
    })
}

/// Why the command could not be started, in the user's words.
fn not_started(name: Option<&std::ffi::OsString>, errno: Errno, found: bool) -> Error {
    let name = name.map_or(OsStr::new(""), |name| name.as_os_str());
    let why = match (errno, found) {
        (Errno::ENOENT, false) => "not found in the image".to_owned(),
        (Errno::ENOENT, true) => {
            // It is there, but cannot be executed: 126.
            let why = "the interpreter or loader that it asks for is not in the image";
            return Error::new(Errno::EACCES, format!("{}: {why}", shown(name)));
        }
        (Errno::EACCES, _) => "may not be executed".to_owned(),
        (errno, _) => errno.to_string(),
    };
    Error::new(errno, format!("{}: {why}", shown(name)))
}

fn shown(name: &OsStr) -> String {
    name.as_bytes().escape_ascii().to_string()
}

/// A running container and what bears on it.
struct Watch<'a> {
    container: Pid1,
    relay: Option<Relay>,
    terminal: Option<&'a mut Terminal>,
}

impl Watch<'_> {
    /// Passes signals on until the container has ended; the event that tells how.
    fn until_end(&mut self) -> Result<Option<Event>> {
        let mut last = None;
        loop {
            let [told, heard] = self.wait(None)?;
            if heard {
                self.pass_on();
            }
            if !told {
                continue;
            }
            match self.container.event()? {
                Event::Gone => return Ok(last),
                Event::Stopped(_) => self.stop()?,
                // What was said first is the cause of what follows.
                event => last = last.or(Some(event)),
            }
        }
    }

    /// Waits for the container to tell something, or for a signal.
    fn wait(&self, timeout: Option<&Timespec>) -> Result<[bool; 2]> {
        let container = PollFd::new(&self.container, PollFlags::IN);
        let polled = if let Some(relay) = &self.relay {
            let mut fds = [container, PollFd::new(relay, PollFlags::IN)];
            let polled = rustix::event::poll(&mut fds, timeout);
            polled.map(|_| fds.map(|fd| !fd.revents().is_empty()))
        } else {
            let mut fds = [container];
            let polled = rustix::event::poll(&mut fds, timeout);
            polled.map(|_| [!fds[0].revents().is_empty(), false])
        };
        match polled {
            Err(rustix::io::Errno::INTR) => Ok([false, false]),
            result => Ok(result?),
        }
    }

    /// Passes on what was heard. Whether it asked to go on.
    fn pass_on(&mut self) -> bool {
        let mut go_on = false;
        while let Some(Heard { signal, from_terminal }) = self.relay.as_ref().and_then(Relay::next)
        {
            if signal == CONTINUE {
                go_on = true;
                self.resume();
            } else {
                self.container.signal(signal, from_terminal);
            }
        }
        go_on
    }

    /// The command was stopped: so are we, until somebody lets us go on.
    fn stop(&mut self) -> Result<()> {
        let Some(relay) = &self.relay else { return Ok(()) };
        if let Some(terminal) = &mut self.terminal {
            terminal.take_back().unwrap_or_default();
        }
        relay.stop_ourselves(self.terminal.is_some())?;
        // Heard here and now, so that it is not passed on twice: the command may be stopped again
        // by then.
        let [_, heard] = self.wait(Some(&CONTINUED))?;
        // Nobody would ever let us go on if nobody has stopped us: no shell controls this job.
        if !(heard && self.pass_on()) {
            self.resume();
        }
        Ok(())
    }

    /// Lets the command go on, with the terminal if we have it.
    fn resume(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            // A terminal that was hung up is of no use to the command either.
            terminal.lend_again().unwrap_or_default();
        }
        self.container.signal(CONTINUE, true);
    }
}
