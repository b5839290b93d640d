//! The capture as nftables rules: three tables of its own in the family `inet`, which holds IPv4 and IPv6 at once.
//!
//! Owns: the text that `nft -f` reads. Never touches a table that is not named here. Cost: linear in the rules; the
//! kernel takes the whole text or none of it.

use std::fmt::Write;

use crate::capture::Capture;
use crate::ruleset::Ruleset;

mod rules;
#[cfg(test)]
mod tests;

pub(crate) const NAT: &str = "istio-proxy-nat";
const MANGLE: &str = "istio-proxy-mangle";
const RAW: &str = "istio-proxy-raw";

/// All tables that a capture may own, in the order in which they are written.
pub(crate) const TABLES: [&str; 3] = [NAT, MANGLE, RAW];

const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";

/// Where a base chain is called from; none for chains that are jumped to. Priorities are those of `iptables`' tables.
fn hook(table: &str, chain: &str) -> Option<&'static str> {
    match (table, chain) {
        (NAT, PREROUTING) => Some("type nat hook prerouting priority -100"),
        (NAT, OUTPUT) => Some("type nat hook output priority -100"),
        (MANGLE, PREROUTING) => Some("type filter hook prerouting priority -150"),
        (MANGLE, OUTPUT) => Some("type route hook output priority -150"),
        (RAW, PREROUTING) => Some("type filter hook prerouting priority -300"),
        (RAW, OUTPUT) => Some("type filter hook output priority -300"),
        _ => None,
    }
}

/// The rules of both families, or of IPv4 alone.
pub(crate) fn rules(capture: &Capture, ipv6: bool) -> Ruleset {
    rules::build(capture, ipv6)
}

/// The text that puts `rules` in force, and takes away what another capture left.
pub(crate) fn script(rules: &Ruleset) -> String {
    let mut text = String::new();
    for table in TABLES {
        write_removal(&mut text, table);
        let chains = rules.chains_in_order(table);
        if chains.is_empty() {
            continue;
        }
        let _ = writeln!(text, "add table inet {table}");
        for (chain, _) in &chains {
            let _ = match hook(table, chain) {
                Some(hook) => writeln!(text, "add chain inet {table} {chain} {{ {hook} ; }}"),
                None => writeln!(text, "add chain inet {table} {chain}"),
            };
        }
        for (chain, rules) in &chains {
            for words in rules {
                let _ = writeln!(text, "add rule inet {table} {chain} {words}");
            }
        }
    }
    text
}

/// The text that takes away all that a capture left.
pub(crate) fn removal() -> String {
    let mut text = String::new();
    TABLES.iter().for_each(|table| write_removal(&mut text, table));
    text
}

/// A table that is not there cannot be deleted, so it is made first.
fn write_removal(text: &mut String, table: &str) {
    let _ = writeln!(text, "add table inet {table}\ndelete table inet {table}");
}

/// How many rules each chain of `listing`, as `nft list table` prints it, has.
pub(crate) fn count(listing: &str) -> Vec<(String, usize)> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for line in listing.lines().map(str::trim) {
        if let Some(chain) = line.strip_prefix("chain ").and_then(|rest| rest.split(' ').next()) {
            counts.push((chain.to_owned(), 0));
        } else if line.contains(" counter ") || line.starts_with("counter ") {
            // Every rule of ours counts its packets; no other line of a listing does.
            if let Some((_, count)) = counts.last_mut() {
                *count += 1;
            }
        }
    }
    counts
}
