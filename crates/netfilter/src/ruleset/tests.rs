use std::path::PathBuf;

use super::*;
use crate::capture::tests::goldens;

/// A case of a rule builder: the calls made on it, each as words, and its blocks of expected text by name.
pub(crate) struct Case {
    pub path: PathBuf,
    calls: Vec<Vec<String>>,
    text: String,
}

impl Case {
    fn read(path: PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut calls: Vec<Vec<String>> = Vec::new();
        let within = text.lines().skip_while(|line| *line != "calls:").skip(1);
        for line in within.take_while(|line| line.starts_with("- - ") || line.starts_with("  - ")) {
            let word = line[4..].trim_matches('\'').to_owned();
            if line.starts_with('-') {
                calls.push(Vec::new());
            }
            calls.last_mut().unwrap().push(word);
        }
        Case { path, calls, text }
    }

    /// A block of text; none where the case says nothing of it, empty where it expects nothing.
    fn expected(&self, name: &str) -> Option<String> {
        let head = self.text.lines().position(|line| line.starts_with(&format!("{name}: ")))?;
        let block = self.text.lines().skip(head + 1).map_while(|line| line.strip_prefix("  "));
        Some(block.map(|line| format!("{line}\n")).collect())
    }

    /// The lines of a block that are moved to the right, without the move; none where the case has no such block.
    pub fn block(&self, name: &str) -> Option<String> {
        let head = self.text.lines().position(|line| line == format!("{name}:"))?;
        let block = self.text.lines().skip(head + 1).take_while(|line| line.starts_with([' ', '-']));
        Some(block.map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect())
    }

    /// What the calls for a family make. Positions count from `first`.
    pub fn rules(&self, family: &str, first: u32) -> Ruleset {
        let mut rules = Ruleset::default();
        for call in &self.calls {
            let [method, chain, table, words @ ..] = &call[..] else { panic!("{}", self.path.display()) };
            let (chain, table) = (&*chain.clone().leak(), &*table.clone().leak());
            if method.contains("RuleV") && !method.ends_with(family) && !method.ends_with("IfSupported") {
                continue;
            }
            match words {
                [position, words @ ..] if method.starts_with("Insert") => {
                    rules.insert(table, chain, position.parse::<u32>().unwrap() + 1 - first, words.join(" "));
                }
                words => rules.append(table, chain, words.join(" ")),
            }
        }
        rules
    }
}

pub(crate) fn cases(suite: &str) -> Option<Vec<Case>> {
    let entries = std::fs::read_dir(goldens(suite)?).unwrap();
    Some(entries.map(|entry| Case::read(entry.unwrap().path())).collect())
}

#[test]
fn text_for_iptables_restore_is_that_of_istios_builder() {
    let Some(cases) = cases("iptables-builder") else {
        return println!("skipped: no golden cases beside the workspace");
    };
    let mut compared = 0;
    for case in &cases {
        for family in ["V4", "V6"] {
            let Some(expected) = case.expected(&format!("expected_restore_{}", family.to_lowercase())) else {
                continue;
            };
            assert_eq!(case.rules(family, 1).restore_text(), expected, "{} {family}", case.path.display());
            compared += 1;
        }
    }
    assert_eq!((cases.len(), compared), (17, 22));
}

#[test]
fn what_rules_made_is_taken_away_as_by_istios_builder() {
    let Some(cases) = cases("iptables-builder") else {
        return println!("skipped: no golden cases beside the workspace");
    };
    let mut compared = 0;
    for case in &cases {
        for family in ["V4", "V6"] {
            let Some(block) = case.block(&format!("expected_cleanup_{}", family.to_lowercase())) else { continue };
            // A list of lists: each call begins with two dashes.
            let calls = block.split("- - ").skip(1);
            let expected: Vec<String> = calls
                .map(|call| {
                    call.lines()
                        .map(|word| word.trim_start_matches("- ").trim_matches('\''))
                        .collect::<Vec<_>>()
                        .join(" ")
                })
                .collect();
            assert_eq!(case.rules(family, 1).removal(), expected, "{} {family}", case.path.display());
            compared += 1;
        }
    }
    assert_eq!(compared, 6);
}

#[test]
fn insertions_are_carried_out_as_by_istios_builder() {
    let Some(cases) = cases("nftables-builder") else {
        return println!("skipped: no golden cases beside the workspace");
    };
    for case in &cases {
        let rules = case.rules("V6", 0);
        let mut text = String::new();
        for table in rules.tables() {
            let _ = writeln!(text, "add table inet {table}");
            for (chain, rules) in rules.chains_in_order(table) {
                let _ = writeln!(text, "add chain inet {table} {chain}");
                rules.iter().for_each(|rule| writeln!(text, "add rule inet {table} {chain} {rule}").unwrap());
            }
        }
        assert_eq!(Some(text), case.expected("expected"), "{}", case.path.display());
    }
    assert_eq!(cases.len(), 8);
}
