//! What this process is and may: capabilities, user namespace, limits, umask, kernel version.

use rustix::process::Resource;
use rustix::thread::CapabilitySet;

/// A kernel version, `major.minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// The 6 of 6.12.
    pub major: u32,
    /// The 12 of 6.12.
    pub minor: u32,
}

/// Lets the mode bits of what this process makes be exactly those it asks for. The umask belongs
/// to the whole process: call it once, at start.
pub fn set_umask_zero() {
    rustix::process::umask(rustix::fs::Mode::empty());
}

/// The running kernel's version; 0.0 if it cannot be made out.
pub fn kernel_version() -> KernelVersion {
    parse_version(&rustix::system::uname().release().to_string_lossy())
}

/// Reads the two leading numbers of a release such as `6.1.0-18-amd64`.
fn parse_version(release: &str) -> KernelVersion {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    KernelVersion { major: numbers.next().unwrap_or(0), minor: numbers.next().unwrap_or(0) }
}

/// Whether `CAP_SYS_ADMIN` is effective (in this process's own user namespace).
pub fn has_sys_admin() -> bool {
    has(CapabilitySet::SYS_ADMIN)
}

/// Whether `CAP_MKNOD` is effective.
pub fn has_mknod() -> bool {
    has(CapabilitySet::MKNOD)
}

/// Whether this process may give files to anybody: `CAP_CHOWN`, where every id exists.
pub fn may_give_away() -> bool {
    has(CapabilitySet::CHOWN) && in_initial_user_namespace()
}

/// Whether the groups of a process can be changed in this user namespace: not in those that a user
/// without privileges has made himself, where only one group is mapped.
pub fn may_set_groups() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").map_or(true, |said| said.trim() != "deny")
}

fn has(capability: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

/// Whether this is the initial user namespace: the one where all ids map to themselves. A
/// namespace made with that very map (only root can) passes for it.
pub fn in_initial_user_namespace() -> bool {
    match std::fs::read_to_string("/proc/self/uid_map") {
        Ok(map) => map.split_ascii_whitespace().eq(["0", "0", "4294967295"]),
        // Without user namespaces in the kernel there is only the initial one.
        Err(_) => true,
    }
}

/// Whether a thread (or the first thread of a process), by its number in this pid namespace, is
/// about to be ended by a signal. False where that cannot be made out.
pub fn is_being_killed(thread: u32) -> bool {
    // A signal that ends a process, whichever it is, is passed to each of its threads as SIGKILL.
    const KILL: u64 = 1 << (libc::SIGKILL - 1);
    let Ok(status) = std::fs::read_to_string(format!("/proc/{thread}/status")) else {
        return false;
    };
    let pending = |line: &str| {
        let set = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(set.trim(), 16).ok()
    };
    status.lines().filter_map(pending).any(|set| set & KILL != 0)
}

/// Whether a thread, by its number in this pid namespace, may change a file that is setuid or
/// setgid without clearing that: it has `CAP_FSETID`, over all of the machine and not only in a
/// user namespace. False where that cannot be made out.
pub fn keeps_set_id(thread: u32) -> bool {
    const FSETID: u64 = 1 << 4;
    // What the kernel calls the first user namespace (`PROC_USER_INIT_INO`).
    const INITIAL: &str = "user:[4026531837]";
    let namespace = std::fs::read_link(format!("/proc/{thread}/ns/user"));
    // Without user namespaces in the kernel, no process has one.
    let is_initial = match namespace {
        Ok(namespace) => namespace.as_os_str() == INITIAL,
        Err(_) => !std::path::Path::new("/proc/self/ns/user").exists(),
    };
    let Ok(status) = std::fs::read_to_string(format!("/proc/{thread}/status")) else {
        return false;
    };
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    is_initial && effective.is_some_and(|set| set & FSETID != 0)
}

/// Asks the kernel to end other processes before this one when memory runs out: whoever uses the
/// mount would see errors, and gain nothing. Only who may (`CAP_SYS_RESOURCE`, so hardly anybody
/// but root) gets it; for others nothing changes.
pub fn spare_when_memory_ends() {
    // Not -1000, "never": it would stay even if it were this process that takes all the memory.
    const SCORE: i32 = -900;
    const FILE: &str = "/proc/self/oom_score_adj";
    let now = std::fs::read_to_string(FILE).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if now.is_some_and(|now| now > SCORE)
        && let Err(error) = std::fs::write(FILE, SCORE.to_string())
    {
        tracing::debug!("{FILE} stays as it is: {error}");
    }
}

/// How much memory this process has in use, KiB; 0 where that cannot be made out.
pub fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// How many descriptors this process has open; 0 where that cannot be made out.
pub fn open_descriptors() -> usize {
    // The one that lists them is not counted.
    std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count().saturating_sub(1))
}

/// How many descriptors this process may have open: the soft `RLIMIT_NOFILE`.
pub fn nofile_limit() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The user and group that new files of this process belong to.
pub fn fs_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

#[cfg(test)]
mod tests;
