//! Two transcripts line by line, order apart.

use super::{Plan, Transcripts, purpose};

/// The probes that went differently, each with the lines that only one side has.
pub fn all(plan: &Plan<'_>, transcripts: &Transcripts) -> Vec<String> {
    let different = transcripts.iter().zip(&plan.probes).enumerate().filter_map(|(number, (both, probe))| {
        let [theirs, ours] = [0, 1].map(|side| {
            let mut lines: Vec<String> =
                both[side].iter().map(|line| purpose::alike(line)).filter(|line| !line.is_empty()).collect();
            lines.sort();
            purpose::unread(&mut lines);
            purpose::refused(&mut lines);
            if purpose::unserved(&lines) { vec!["nobody served".to_owned()] } else { lines }
        });
        if theirs == ours {
            return None;
        }
        let title = format!("seed {} probe {number} {}", plan.seed, probe.title);
        let action = format!("{} -> {} {:?}\n{:?}", probe.from, probe.to, probe.tls, probe.action);
        Some(format!("{title}\n{action}\n{}{}", only("envoy  ", &theirs, &ours), only("meltemi", &ours, &theirs)))
    });
    different.collect()
}

/// The lines of one side that the other lacks, with multiplicity.
fn only(mark: &str, these: &[String], those: &[String]) -> String {
    let mut left: Vec<&String> = those.iter().collect();
    let mut out = String::new();
    for line in these {
        match left.iter().position(|other| *other == line) {
            Some(at) => drop(left.swap_remove(at)),
            None => out += &format!("{mark} {line}\n"),
        }
    }
    out
}
