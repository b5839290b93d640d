//! Putting rules into the kernel and taking them out, by the `iptables` programs or by `nft`.
//!
//! Owns: running `iptables-save` and `iptables-restore` (or their `ip6tables` twins), or `nft`, in the network namespace of
//! the calling thread. Never a shell. Cost: two short processes for each family, or one `nft` for both.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use thiserror::Error;

use crate::capture::Capture;
use crate::installation::Backend;
use crate::nftables;
use crate::ruleset::{Family, Ruleset};

#[cfg(test)]
mod tests;

/// Which programs to run, and what they need in their environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// `legacy` or `nft`, put between the name and `-restore`; the host's default where empty.
    pub flavour: Option<&'static str>,
    /// A file that `iptables-legacy` may lock, where its default is out of reach.
    pub lock_file: Option<PathBuf>,
}

#[derive(Debug, Error)]
pub enum ApplyError {
    #[error(
        "{program} is missing: traffic cannot be captured without it. \
         Install it, on Debian or Ubuntu with `apt-get install {package}`, on Fedora with `dnf install {package}`"
    )]
    Missing { program: String, package: &'static str },
    #[error("{program} refused: {message}")]
    Refused { program: String, message: String },
    #[error("running {program}: {source}")]
    Run { program: String, source: std::io::Error },
}

/// Another program may be at work on the same tables: it is waited for, in seconds.
const LOCK_WAIT: &str = "--wait=30";

impl ApplyError {
    fn missing(program: &str) -> Self {
        let package = if program.starts_with("nft") { "nftables" } else { "iptables" };
        ApplyError::Missing { program: program.to_owned(), package }
    }
}

impl Program {
    /// `iptables` or its twin, in the flavour that is asked for.
    pub(crate) fn command(&self, family: Family) -> String {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        self.flavour.map_or_else(|| base.to_owned(), |flavour| format!("{base}-{flavour}"))
    }

    fn run(&self, family: Family, verb: &str, arguments: &[&str], input: &str) -> Result<String, ApplyError> {
        let program = format!("{}-{verb}", self.command(family));
        let mut command = Command::new(&program);
        command.args(arguments);
        if let Some(lock) = &self.lock_file {
            command.env("XTABLES_LOCKFILE", lock);
        }
        run(&program, &mut command, input)
    }

    fn save(&self, family: Family) -> Result<String, ApplyError> {
        self.run(family, "save", &[], "")
    }

    /// Gives `text` to `iptables-restore`, leaving what it does not name as it is.
    pub fn restore(&self, family: Family, text: &str) -> Result<(), ApplyError> {
        self.run(family, "restore", &["--noflush", LOCK_WAIT], text).map(drop)
    }
}

/// An ordinary user's `PATH` often lacks the folders where `iptables` is.
fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// Whether this network namespace has an IPv6 address beyond its loopback's.
pub fn ipv6_in_use() -> bool {
    // Of this thread, which may be in another namespace than the process.
    let table = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    // The fourth column is the scope: 10 is host, 20 is link.
    table.lines().filter_map(|line| line.split_whitespace().nth(3)).any(|scope| scope == "00")
}

/// What is to be put in force, for either program.
pub trait Rules {
    fn iptables(&self, family: Family) -> Ruleset;
    /// The rules of both families, or of IPv4 alone.
    fn nftables(&self, ipv6: bool) -> Ruleset;
    /// All tables of nft's that these rules may own, in the order in which they are written.
    fn tables(&self) -> &'static [&'static str];
}

/// Puts rules in force, replacing table by table what others of the same kind left.
pub(crate) fn put(rules: &impl Rules, backend: &Backend, ipv6: bool) -> Result<(), ApplyError> {
    let program = match backend {
        Backend::Iptables(program) => program,
        Backend::Nftables => {
            return nft(&["-f", "-"], &nftables::script(&rules.nftables(ipv6), rules.tables())).map(drop);
        }
    };
    for family in Family::of(ipv6) {
        let saved = program.save(*family)?;
        program.restore(*family, &crate::cleanup::replacement_text(&saved, &rules.iptables(*family)))?;
    }
    Ok(())
}

/// Takes away what rules of this kind left, whatever their settings were.
pub(crate) fn take_away(rules: &impl Rules, backend: &Backend, ipv6: bool) -> Result<(), ApplyError> {
    let program = match backend {
        Backend::Iptables(program) => program,
        Backend::Nftables => return nft(&["-f", "-"], &nftables::removal(rules.tables())).map(drop),
    };
    for family in Family::of(ipv6) {
        let saved = program.save(*family)?;
        if let Some(text) = crate::cleanup::removal_text(&saved, &rules.iptables(*family)) {
            program.restore(*family, &text)?;
        }
    }
    Ok(())
}

/// The chains that are missing or differ in their number of rules, each with its table.
pub(crate) fn missing(rules: &impl Rules, backend: &Backend, ipv6: bool) -> Result<Vec<String>, ApplyError> {
    let program = match backend {
        Backend::Iptables(program) => program,
        Backend::Nftables => return missing_from_nftables(rules, ipv6),
    };
    let mut missing = Vec::new();
    for family in Family::of(ipv6) {
        missing.extend(crate::cleanup::missing(&program.save(*family)?, &rules.iptables(*family)));
    }
    Ok(missing)
}

fn missing_from_nftables(wanted: &impl Rules, ipv6: bool) -> Result<Vec<String>, ApplyError> {
    let rules = wanted.nftables(ipv6);
    let listed = nft(&["list", "tables", "inet"], "")?;
    let mut missing = Vec::new();
    for table in wanted.tables() {
        let there = listed.lines().any(|line| line.trim() == format!("table inet {table}"));
        let listing = if there { nft(&["list", "table", "inet", table], "")? } else { String::new() };
        let counts = nftables::count(&listing);
        for (chain, rules) in rules.chains_in_order(table) {
            if !counts.contains(&(chain.to_owned(), rules.len())) {
                missing.push(format!("{table} {chain}"));
            }
        }
    }
    Ok(missing)
}

/// Installs the capture's rules where there are none yet: saves a process for each family over [`apply`].
pub fn install(capture: &Capture, families: &[Family], program: &Program) -> Result<(), ApplyError> {
    families.iter().try_for_each(|family| program.restore(*family, &capture.rules(*family).restore_text()))
}

/// Runs `nft` with a script, or to print a table.
pub(crate) fn nft(arguments: &[&str], script: &str) -> Result<String, ApplyError> {
    run("nft", Command::new("nft").args(arguments), script)
}

fn run(program: &str, command: &mut Command, input: &str) -> Result<String, ApplyError> {
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => ApplyError::missing(program),
        _ => ApplyError::Run { program: program.to_owned(), source },
    };
    command.env("PATH", search_path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    // A program that stops early closes the pipe; what it printed says why.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ApplyError::Refused { program: program.to_owned(), message });
    }
    written.map_err(failed)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
