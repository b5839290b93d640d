//! Rules as values, and the text that `iptables-restore` reads.
//!
//! Owns: the order in which tables, chains and rules are written. Never runs anything. Cost: linear in the rules.

use std::fmt::Write;

#[cfg(test)]
pub(crate) mod tests;

/// Which of the kernel's two rule sets is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// IPv4, and IPv6 where it is in use.
    pub(crate) fn of(ipv6: bool) -> &'static [Family] {
        if ipv6 { &[Family::V4, Family::V6] } else { &[Family::V4] }
    }
}

/// Where in its chain a rule goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    Append,
    /// At this position, counted from 1.
    Insert(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub table: &'static str,
    pub chain: &'static str,
    pub placement: Placement,
    /// Everything after the chain: matches and target.
    pub words: String,
}

impl Rule {
    fn line(&self) -> String {
        match self.placement {
            Placement::Append => format!("-A {} {}", self.chain, self.words),
            Placement::Insert(position) => format!("-I {} {} {}", self.chain, position, self.words),
        }
    }
}

/// The rules of one family, in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    rules: Vec<Rule>,
    /// Chains whose place is given, by table; others follow in the order of their first rule.
    declared: Vec<(&'static str, &'static str)>,
}

/// A chain with its rules, each as words, in the order in which the kernel will try them.
pub(crate) type Chain<'a> = (&'static str, Vec<&'a str>);

/// Chains that the kernel makes itself, and that must not be declared.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// How the names of our chains begin.
pub(crate) const OURS: &str = "ISTIO_";

/// Whether `chain` exists without anybody having made it.
pub(crate) fn is_built_in(chain: &str) -> bool {
    BUILT_IN.contains(&chain)
}

impl Ruleset {
    pub fn append(&mut self, table: &'static str, chain: &'static str, words: impl Into<String>) {
        self.rules.push(Rule { table, chain, placement: Placement::Append, words: words.into() });
    }

    pub fn insert(&mut self, table: &'static str, chain: &'static str, position: u32, words: impl Into<String>) {
        self.rules.push(Rule { table, chain, placement: Placement::Insert(position), words: words.into() });
    }

    /// Gives a chain its place in the table, whenever its rules come, if any do.
    pub(crate) fn declare(&mut self, table: &'static str, chain: &'static str) {
        self.declared.push((table, chain));
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The tables that hold a rule, in alphabetical order.
    pub(crate) fn tables(&self) -> Vec<&'static str> {
        let mut tables: Vec<_> = self.rules.iter().map(|rule| rule.table).collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    /// The chains of `table` that have rules or are led to, with every insertion carried out.
    pub(crate) fn chains_in_order(&self, table: &str) -> Vec<Chain<'_>> {
        let declared = self.declared.iter().filter(|(of, _)| *of == table);
        let mut chains: Vec<Chain<'_>> = declared.map(|(_, chain)| (*chain, Vec::new())).collect();
        for rule in self.rules.iter().filter(|rule| rule.table == table) {
            let at = chains.iter().position(|(chain, _)| *chain == rule.chain).unwrap_or_else(|| {
                chains.push((rule.chain, Vec::new()));
                chains.len() - 1
            });
            let Some((_, rules)) = chains.get_mut(at) else { continue };
            let position = match rule.placement {
                Placement::Append => rules.len(),
                Placement::Insert(position) => {
                    usize::try_from(position).unwrap_or(usize::MAX).saturating_sub(1).min(rules.len())
                }
            };
            rules.insert(position, &rule.words);
        }
        chains.retain(|(chain, rules)| !rules.is_empty() || self.leads_to(table, chain));
        chains
    }

    /// Whether a rule of `table` ends in this chain, which must then be there, be it empty.
    fn leads_to(&self, table: &str, chain: &str) -> bool {
        let ends = |words: &str| {
            words.strip_suffix(chain).is_some_and(|rest| rest.ends_with("-j ") || rest.ends_with("jump "))
        };
        self.rules.iter().any(|rule| rule.table == table && ends(&rule.words))
    }

    /// The chains of `table` that the kernel does not make itself, in the order of their first rule; then those that are
    /// only led to.
    pub(crate) fn own_chains(&self, table: &str) -> Vec<&'static str> {
        let mut chains: Vec<&str> = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.table == table) {
            if !is_built_in(rule.chain) && !chains.contains(&rule.chain) {
                chains.push(rule.chain);
            }
        }
        for (of, chain) in &self.declared {
            if *of == table && !chains.contains(chain) && self.leads_to(table, chain) {
                chains.push(chain);
            }
        }
        chains
    }

    /// The lines that put the rules of `table` in force, its chains being there.
    pub(crate) fn lines<'a>(&'a self, table: &'a str) -> impl Iterator<Item = String> + 'a {
        self.rules.iter().filter(move |rule| rule.table == table).map(Rule::line)
    }

    /// Arguments of `iptables`, one call a line, that take away what these rules made: the last first, and what stands in a
    /// chain of ours with its chain.
    pub fn removal(&self) -> Vec<String> {
        let ours = |rule: &&Rule| rule.chain.starts_with(OURS);
        let rules = self.rules.iter().rev().filter(|rule| !ours(rule));
        let mut lines: Vec<String> =
            rules.map(|rule| format!("-t {} -D {} {}", rule.table, rule.chain, rule.words)).collect();
        let mut seen = Vec::new();
        for Rule { table, chain, .. } in self.rules.iter().rev() {
            if !is_built_in(chain) && !seen.contains(&(table, chain)) {
                seen.push((table, chain));
                lines.extend(["-F", "-X"].map(|verb| format!("-t {table} {verb} {chain}")));
            }
        }
        lines
    }

    /// Text for `iptables-restore --noflush`: each table declares its own chains in the order of their first rule.
    pub fn restore_text(&self) -> String {
        let mut text = String::new();
        for table in self.tables() {
            let _ = writeln!(text, "* {table}");
            for chain in self.own_chains(table) {
                let _ = writeln!(text, "-N {chain}");
            }
            for line in self.lines(table) {
                let _ = writeln!(text, "{line}");
            }
            text.push_str("COMMIT\n");
        }
        text
    }
}
