//! Undoing a capture, worked out from what `iptables-save` prints.
//!
//! Owns: which rules and chains are ours. Never touches a rule that neither stands in nor jumps to an `ISTIO_` chain,
//! unless it is word for word one of the capture's own. Cost: linear in the rules that exist.

use std::fmt::Write;

use crate::ruleset::{Ruleset, is_built_in};

#[cfg(test)]
mod tests;

const OURS: &str = "ISTIO_";

/// One table of a saved rule set.
#[derive(Default)]
struct Saved<'a> {
    table: &'a str,
    chains: Vec<&'a str>,
    jumps: Vec<&'a str>,
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
            let target = words.rsplit_once("-j ").map_or("", |(_, target)| target);
            let own = own.rules().iter().any(|rule| {
                rule.table == current.table && rule.chain == chain && rule.words == words && is_built_in(chain)
            });
            if is_built_in(chain) && (target.starts_with(OURS) || own) {
                current.jumps.push(rule);
            }
        }
    }
    tables
}

/// Text for `iptables-restore --noflush` that takes away what a capture left in `saved`; none where nothing is left.
pub(crate) fn restore_text(saved: &str, own: &Ruleset) -> Option<String> {
    let mut text = String::new();
    for table in parse(saved, own) {
        // Without a chain of ours, a rule that looks like ours is somebody else's.
        if table.chains.is_empty() {
            continue;
        }
        let _ = writeln!(text, "*{}", table.table);
        for rule in &table.jumps {
            let _ = writeln!(text, "-D {rule}");
        }
        for chain in &table.chains {
            let _ = writeln!(text, "-F {chain}");
        }
        for chain in &table.chains {
            let _ = writeln!(text, "-X {chain}");
        }
        text.push_str("COMMIT\n");
    }
    (!text.is_empty()).then_some(text)
}
