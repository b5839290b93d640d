//! Undoing a capture, worked out from what `iptables-save` prints.
//!
//! Owns: which rules and chains are ours. Never touches a rule that neither stands in nor jumps to an `ISTIO_` chain,
//! unless it is word for word one of the capture's own or keeps TPROXY's marks. Cost: linear in the rules that exist.

use std::fmt::Write;

use crate::ruleset::{OURS, Ruleset, is_built_in};

#[cfg(test)]
mod tests;

/// One table of a saved rule set.
#[derive(Default)]
struct Saved<'a> {
    table: &'a str,
    chains: Vec<&'a str>,
    jumps: Vec<&'a str>,
}

impl Saved<'_> {
    /// Takes away jumps, rules and those chains that are not to be `kept`.
    fn write_removal(&self, text: &mut String, kept: &[&str]) {
        for rule in &self.jumps {
            let _ = writeln!(text, "-D {rule}");
        }
        for chain in &self.chains {
            let _ = writeln!(text, "-F {chain}");
        }
        for chain in self.chains.iter().filter(|chain| !kept.contains(chain)) {
            let _ = writeln!(text, "-X {chain}");
        }
    }
}

fn jumps_to_ours(words: &str) -> bool {
    words.rsplit_once("-j ").is_some_and(|(_, target)| target.starts_with(OURS))
}

/// Whether a rule is one of the capture's own, in whichever table: which of them have it depends on other settings.
fn own_words(own: &Ruleset, chain: &str, words: &str) -> bool {
    own.rules().iter().any(|rule| rule.chain == chain && rule.words == words)
}

/// Whether a rule is one of those by which TPROXY keeps marks, whatever the mark and the owners. `iptables-save` writes
/// them with more words than they were made of.
fn marks(table: &str, words: &str) -> bool {
    let on_loopback = words.contains("-o lo -p tcp ");
    table == "mangle"
        && ((words.starts_with("-p tcp -m mark --mark ") && words.contains("-j CONNMARK --save-mark"))
            || (words.starts_with("-p tcp -m connmark --mark ") && words.contains("-j CONNMARK --restore-mark"))
            || (on_loopback && words.contains("-m mark --mark ") && words.ends_with("-j RETURN"))
            || (on_loopback && words.contains("-j MARK --set-xmark ")))
}

/// The tables in which a capture left something. Without a chain of ours, a rule that looks like ours is somebody else's.
fn left_behind<'a>(saved: &'a str, own: &Ruleset) -> Vec<Saved<'a>> {
    let mut tables = parse(saved, own);
    tables.retain(|table| !table.chains.is_empty());
    tables
}

fn parse<'a>(saved: &'a str, own: &Ruleset) -> Vec<Saved<'a>> {
    let mut tables: Vec<Saved<'a>> = Vec::new();
    for line in saved.lines() {
        if let Some(table) = line.strip_prefix('*') {
            tables.push(Saved { table: table.trim(), ..Saved::default() });
            continue;
        }
        let Some(current) = tables.last_mut() else { continue };
        if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
            if chain.starts_with(OURS) {
                current.chains.push(chain);
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (chain, words) = rule.split_once(' ').unwrap_or((rule, ""));
            if is_built_in(chain)
                && (marks(current.table, words) || jumps_to_ours(words) || own_words(own, chain, words))
            {
                current.jumps.push(rule);
            }
        }
    }
    tables
}

/// Text for `iptables-restore --noflush` that takes away what a capture left in `saved`; none where nothing is left.
pub(crate) fn removal_text(saved: &str, own: &Ruleset) -> Option<String> {
    let mut text = String::new();
    for table in left_behind(saved, own) {
        let _ = writeln!(text, "*{}", table.table);
        table.write_removal(&mut text, &[]);
        text.push_str("COMMIT\n");
    }
    (!text.is_empty()).then_some(text)
}

/// Text that takes away what a capture left in `saved` and puts `own` in its place, each table at once: at no moment
/// does a packet meet a table without rules.
pub(crate) fn replacement_text(saved: &str, own: &Ruleset) -> String {
    let left = left_behind(saved, own);
    let mut tables = own.tables();
    tables.extend(left.iter().map(|table| table.table).filter(|table| !own.tables().contains(table)));
    let mut text = String::new();
    for table in tables {
        let chains = own.own_chains(table);
        let there = left.iter().find(|left| left.table == table);
        let _ = writeln!(text, "*{table}");
        if let Some(there) = there {
            there.write_removal(&mut text, &chains);
        }
        for chain in chains {
            if !there.is_some_and(|there| there.chains.contains(&chain)) {
                let _ = writeln!(text, "-N {chain}");
            }
        }
        own.lines(table).for_each(|line| {
            let _ = writeln!(text, "{line}");
        });
        text.push_str("COMMIT\n");
    }
    text
}

/// A rule as it is written in a saved rule set.
#[derive(Debug, PartialEq, Eq)]
struct SavedRule<'a> {
    table: &'a str,
    chain: &'a str,
    line: &'a str,
}

fn rules_of(saved: &str) -> Vec<SavedRule<'_>> {
    let mut rules = Vec::new();
    let mut table = "";
    for line in saved.lines() {
        let mut words = line.split(' ');
        match (line.strip_prefix('*'), words.next()) {
            (Some(name), _) => table = name.trim(),
            (None, Some("-A" | "-I")) => {
                rules.extend(words.next().map(|chain| SavedRule { table, chain, line }));
            }
            _ => {}
        }
    }
    rules
}

/// The chains of `own` that are not in `saved`, or have another number of rules there, each as `table chain`.
pub(crate) fn missing(saved: &str, own: &Ruleset) -> Vec<String> {
    let there = rules_of(saved);
    let count =
        |table: &str, chain: &str| there.iter().filter(|rule| (rule.table, rule.chain) == (table, chain)).count();
    let mut missing = Vec::new();
    for table in own.tables() {
        for (chain, rules) in own.chains_in_order(table) {
            let there = count(table, chain);
            // Others may have rules of their own in a chain that the kernel made.
            let whole = if is_built_in(chain) { there >= rules.len() } else { there == rules.len() };
            if !whole {
                missing.push(format!("{table} {chain}"));
            }
        }
    }
    missing
}
