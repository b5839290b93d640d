//! Gives up what a process that serves strangers does not need: root's user, capabilities, and every way to get them back.
//!
//! Before the process has a second thread, for the kernel keeps capabilities of each thread.

use anyhow::{Context as _, Result};
use meltemi_agent::Settings;
use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap;
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// Istio's user and group of proxies, which capture rules leave alone.
const PROXY: u32 = 1337;

/// More than any kernel has.
const CAPABILITIES: u32 = 64;

/// What to become, and what to keep.
#[derive(Debug, Clone, Copy)]
pub struct Privileges {
    /// As whom to go on; none: as started.
    pub identity: Option<(u32, u32)>,
    pub kept: CapabilitySet,
    /// Programs that this one starts have them too.
    pub inherited: bool,
}

#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// User id to go on as; it takes root [default: 1337 for a ROLE that root starts, else as started]
    #[arg(long, value_name = "UID", env = "MELTEMI_PROXY_USER")]
    user: Option<u32>,
    /// Group id to go on as [default: the user's]
    #[arg(long, value_name = "GID", env = "MELTEMI_PROXY_GROUP", requires = "user")]
    group: Option<u32>,
    /// A capability to keep, besides those that the configuration shows to be needed
    #[arg(long = "keep-capability", value_name = "NAME", value_parser = ["NET_ADMIN", "NET_RAW"], env = "MELTEMI_PROXY_KEEP_CAPABILITIES", value_delimiter = ',')]
    keep_capability: Vec<String>,
}

impl Flags {
    fn kept(&self, transparent: bool) -> CapabilitySet {
        // A listener may come at any time on a low port.
        let mut kept = CapabilitySet::NET_BIND_SERVICE;
        kept.set(CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW, transparent);
        self.keep_capability.iter().filter_map(|name| CapabilitySet::from_name(name)).fold(kept, |all, one| all | one)
    }

    fn asked(&self) -> Option<(u32, u32)> {
        self.user.map(|user| (user, self.group.unwrap_or(user)))
    }

    /// Of an agent with its proxy. Where capture rules tell its sockets by a mark, it needs no user of its own.
    pub fn of_agent(&self, settings: &Settings, inherited: bool) -> Privileges {
        let marked = settings.socket_mark.is_some();
        let own = || (geteuid().is_root() && !marked && is_mapped(PROXY)).then_some((PROXY, PROXY));
        let kept = self.kept(marked || settings.is_transparent());
        Privileges { identity: self.asked().or_else(own), kept, inherited }
    }

    /// Of a proxy over a bootstrap.
    pub fn of_bootstrap(&self, bootstrap: &Bootstrap) -> Privileges {
        Privileges { identity: self.asked(), kept: self.kept(is_transparent(bootstrap)), inherited: false }
    }
}

/// Whether a static listener takes connections for addresses of others, or sets options that only a capability allows.
fn is_transparent(bootstrap: &Bootstrap) -> bool {
    let listeners = bootstrap.static_resources.iter().flat_map(|resources| &resources.listeners);
    let mut needing = listeners.filter(|listener| {
        let wanted = |flag: &Option<bool>| flag.unwrap_or_default();
        wanted(&listener.transparent) || wanted(&listener.freebind) || !listener.socket_options.is_empty()
    });
    needing.next().is_some()
}

/// Whether the user namespace has this id at all, as that of `meltemi up` has not.
fn is_mapped(id: u32) -> bool {
    ["/proc/self/uid_map", "/proc/self/gid_map"].iter().all(|map| {
        let text = std::fs::read_to_string(map).unwrap_or_default();
        text.lines().any(|line| covers(line, id))
    })
}

/// A line says: first id inside, first outside, how many.
fn covers(line: &str, id: u32) -> bool {
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [first, _, count] = numbers[..] else { return false };
    u64::from(id).checked_sub(first).is_some_and(|at| at < count)
}

impl Privileges {
    /// Nobody's but this process' own, with leave to bind ports below 1024 where it has some.
    pub fn none(low_ports: bool) -> Self {
        let kept = if low_ports { CapabilitySet::NET_BIND_SERVICE } else { CapabilitySet::empty() };
        Self { identity: None, kept, inherited: false }
    }

    /// Keeps these of what there is, and gives up the rest for good.
    pub fn confine(&self) -> Result<()> {
        let current = thread::capabilities(None).context("capabilities")?;
        let kept = self.kept & current.permitted;
        if current.effective.contains(CapabilitySet::SETPCAP) {
            bound(kept);
        }
        if let Some((user, group)) = self.identity {
            become_user(user, group).with_context(|| format!("cannot go on as user {user}, group {group}"))?;
        }
        let inheritable = if self.inherited { kept } else { CapabilitySet::empty() };
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable };
        thread::set_capabilities(None, sets).context("capabilities cannot be given up")?;
        thread::clear_ambient_capability_set().context("capabilities of children")?;
        for capability in inheritable.iter() {
            thread::configure_capability_in_ambient_set(capability, true).context("capabilities of children")?;
        }
        thread::set_no_new_privs(true).context("no_new_privs")?;
        tracing::debug!(user = %geteuid(), capabilities = ?kept, "privileges given up");
        Ok(())
    }
}

/// What this process, and all that it starts, may ever have.
fn bound(kept: CapabilitySet) {
    let all = (0..CAPABILITIES).map(|number| CapabilitySet::from_bits_retain(1 << number));
    // The kernel knows no more of them than it refuses.
    let _ = all.filter(|one| !kept.contains(*one)).try_for_each(thread::remove_capability_from_bounding_set);
}

fn become_user(user: u32, group: u32) -> Result<()> {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    if geteuid() == user && nix::unistd::getegid() == group {
        return Ok(());
    }
    thread::set_keep_capabilities(true)?;
    setgroups(&[])?;
    setresgid(group, group, group)?;
    Ok(setresuid(user, user, user)?)
}

#[cfg(test)]
mod tests;
