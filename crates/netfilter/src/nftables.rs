//! Rules as nftables has them, in tables of their own of the family `inet`, which holds IPv4 and IPv6 at once; those of a
//! sidecar's capture in three.
//!
//! Owns: the text that `nft -f` reads. Never touches a table that is not named here. Cost: linear in the rules; the
//! kernel takes the whole text or none of it.

use std::fmt::Write;

use crate::apply::Rules;
use crate::capture::Capture;
use crate::ruleset::{Family, Ruleset};

mod rules;
#[cfg(test)]
pub(crate) mod tests;

const NAT: &str = "istio-proxy-nat";
const MANGLE: &str = "istio-proxy-mangle";
const RAW: &str = "istio-proxy-raw";

const TABLES: [&str; 3] = [NAT, MANGLE, RAW];

pub(crate) const PREROUTING: &str = "prerouting";
pub(crate) const OUTPUT: &str = "output";
pub(crate) const POSTROUTING: &str = "postrouting";

/// Where a base chain is called from; none for chains that are jumped to. A table's name ends in that of the table of
/// `iptables` whose priorities it has.
fn hook(table: &str, chain: &str) -> Option<&'static str> {
    match (table.rsplit('-').next()?, chain) {
        ("nat", PREROUTING) => Some("type nat hook prerouting priority -100"),
        ("nat", OUTPUT) => Some("type nat hook output priority -100"),
        ("nat", POSTROUTING) => Some("type nat hook postrouting priority 100"),
        ("mangle", PREROUTING) => Some("type filter hook prerouting priority -150"),
        ("mangle", OUTPUT) => Some("type route hook output priority -150"),
        ("raw", PREROUTING) => Some("type filter hook prerouting priority -300"),
        ("raw", OUTPUT) => Some("type filter hook output priority -300"),
        _ => None,
    }
}

impl Rules for Capture {
    fn iptables(&self, family: Family) -> Ruleset {
        self.rules(family)
    }

    fn nftables(&self, ipv6: bool) -> Ruleset {
        rules::build(self, ipv6)
    }

    fn tables(&self) -> &'static [&'static str] {
        &TABLES
    }
}

/// The text that puts `rules` in force, and takes away what others left in `tables`.
pub(crate) fn script(rules: &Ruleset, tables: &[&str]) -> String {
    let mut text = String::new();
    for table in tables {
        write_removal(&mut text, table);
        if !rules.chains_in_order(table).is_empty() {
            let _ = writeln!(text, "add table inet {table}");
            write_rules(&mut text, rules, table);
        }
    }
    text
}

/// The text that puts `rules` in force where others may have something in `tables` beside them, such as sets.
pub(crate) fn added(rules: &Ruleset, tables: &[&str]) -> String {
    let mut text = String::new();
    for table in tables {
        let _ = writeln!(text, "add table inet {table}\nflush table inet {table}");
        write_rules(&mut text, rules, table);
    }
    text
}

fn write_rules(text: &mut String, rules: &Ruleset, table: &str) {
    let chains = rules.chains_in_order(table);
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

/// The text that takes away all that is in `tables`.
pub(crate) fn removal(tables: &[&str]) -> String {
    let mut text = String::new();
    tables.iter().for_each(|table| write_removal(&mut text, table));
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
        } else if line.contains(" counter ") || line.starts_with("counter ") || line.starts_with("jump ") {
            // Every rule of ours counts its packets or only leads on; no other line of a listing does.
            if let Some((_, count)) = counts.last_mut() {
                *count += 1;
            }
        }
    }
    counts
}
