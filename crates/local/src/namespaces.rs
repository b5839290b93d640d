//! Entering the namespaces in which the mesh lives.
//!
//! Owns the calls that need a single-threaded process: they come before any runtime. As an ordinary user everything is
//! inside one user namespace that maps that user to root; as root there is none.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::error::LocalError;
use crate::protocol::Event;

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` in the mask of /proc/self/status.
const NEEDED_CAPABILITIES: u64 = (1 << 12) | (1 << 21);

fn has_capabilities() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or_default();
    mask & NEEDED_CAPABILITIES == NEEDED_CAPABILITIES
}

/// Gets this process the right to make namespaces: by a user namespace of its own, unless it has it already.
pub(crate) fn gain_privileges() -> Result<(), LocalError> {
    if has_capabilities() {
        return Ok(());
    }
    let (uid, gid) = (geteuid(), getegid());
    let refused = |what: &str, reason: String| LocalError::UserNamespaces { reason: format!("{what}: {reason}") };
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| refused("unshare", errno.to_string()))?;
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| refused(file, error.to_string()))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))?;
    Ok(())
}

/// The process between host and inside: makes the other namespaces, starts the first process in them as `inside`, and
/// waits for it. Standard input and output pass through untouched.
pub(crate) fn enter(executable: &Path, inside: &[&str]) -> Result<ExitCode, LocalError> {
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    unshare(flags).map_err(|errno| match errno {
        Errno::EPERM | Errno::ENOSPC => LocalError::UserNamespaces { reason: format!("namespaces: {errno}") },
        errno => LocalError::Io { what: "making namespaces".to_owned(), source: errno.into() },
    })?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(|errno| match errno {
        // Where a security module takes the capabilities of a new user namespace away, this is the first to fail.
        Errno::EPERM | Errno::EACCES => LocalError::UserNamespaces { reason: format!("mount: {errno}") },
        errno => LocalError::Io { what: "making mounts private".to_owned(), source: errno.into() },
    })?;
    let mut child = Command::new(executable).args(inside).spawn().map_err(LocalError::io("starting inside"))?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    crate::report(&Event::Init { pid });
    let status = child.wait().map_err(LocalError::io("waiting for the inside"))?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}

/// A process that Ctrl-C on the terminal does not reach: the host's process decides about the end.
pub(crate) fn apart(command: &mut Command) -> &mut Command {
    command.process_group(0)
}

/// A `/proc` of the new process namespace. Where the outer one is partly hidden, as in many containers, the kernel
/// refuses, and the outer one stays: nothing depends on it.
pub(crate) fn mount_proc() {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let _ = mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>);
}

/// Puts `file` in the place of `target` for this thread and what it starts.
pub(crate) fn bind(file: &Path, target: &Path) -> Result<(), LocalError> {
    let target = fs::canonicalize(target).map_err(LocalError::io(target.display().to_string()))?;
    mount(Some(file), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(LocalError::sys(format!("mounting over {}", target.display())))
}
