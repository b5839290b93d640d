//! Rules as values, and the text that `iptables-restore` reads.
//!
//! Owns: the order in which tables, chains and rules are written. Never runs anything. Cost: linear in the rules.

use std::fmt::Write;

/// Which of the kernel's two rule sets is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
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
}

/// Chains that the kernel makes itself, and that must not be declared.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

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

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The tables that hold a rule, in alphabetical order.
    fn tables(&self) -> Vec<&'static str> {
        let mut tables: Vec<_> = self.rules.iter().map(|rule| rule.table).collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    /// Text for `iptables-restore --noflush`: each table declares its own chains in the order of their first rule.
    pub fn restore_text(&self) -> String {
        let mut text = String::new();
        for table in self.tables() {
            let rules: Vec<&Rule> = self.rules.iter().filter(|rule| rule.table == table).collect();
            let mut chains: Vec<&str> = Vec::new();
            for rule in &rules {
                if !is_built_in(rule.chain) && !chains.contains(&rule.chain) {
                    chains.push(rule.chain);
                }
            }
            let _ = writeln!(text, "* {table}");
            for chain in chains {
                let _ = writeln!(text, "-N {chain}");
            }
            for rule in rules {
                let _ = writeln!(text, "{}", rule.line());
            }
            text.push_str("COMMIT\n");
        }
        text
    }
}
