//! The same documents before Istio's validation and before ours: both take and refuse the same ones, and warn of the same.
//!
//! Needs Istio as a program, which `scripts/validation/peer.sh` builds and names in `MELTEMI_VALIDATION_PEER`. Documents are
//! those at hand, each as it is, and changed in a place or two; which changes is chosen by `SEED`, and how many by `DOCUMENTS`,
//! for each kind.

mod ask;
mod known;
mod mutate;
mod seeds;
mod shape;

use std::collections::{BTreeMap, BTreeSet};

use meltemi_config::{Problem, names};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use self::ask::{Ours, Theirs};
use self::known::{KNOWN, Side};
use self::seeds::Seed;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn program() -> Option<String> {
    let program = std::env::var("MELTEMI_VALIDATION_PEER").ok();
    if program.is_none() {
        eprintln!("skipped: MELTEMI_VALIDATION_PEER names no program; scripts/validation/peer.sh builds it");
    }
    program
}

/// Some documents of each kind, and as many changed ones.
fn documents() -> Vec<Seed> {
    let shapes = shape::all();
    let (each, mut random) = (setting("DOCUMENTS", 1500), StdRng::seed_from_u64(setting("SEED", 1)));
    let mut of_kind: BTreeMap<String, Vec<Seed>> = BTreeMap::new();
    for seed in seeds::all() {
        of_kind.entry(seed.kind.clone()).or_default().push(seed);
    }
    let only = std::env::var("KIND").unwrap_or_default();
    let mut found = Vec::new();
    for (kind, seeds) in of_kind.into_iter().filter(|(kind, _)| only.is_empty() || *kind == only) {
        let shape = &shapes[&kind];
        let mut seen: BTreeSet<String> = seeds.iter().map(|seed| seed.document.to_string()).collect();
        for _ in 0..each {
            let mut document = seeds.choose(&mut random).expect("not empty").document.clone();
            for _ in 0..if random.random_ratio(1, 4) { 2 } else { 1 } {
                document = changed(&document, shape, &mut random);
            }
            if seen.insert(document.to_string()) {
                found.push(Seed { kind: kind.clone(), document });
            }
        }
        found.extend(seeds);
    }
    found
}

/// Each place is as likely as any other, and then each change of it.
fn changed(document: &serde_json::Value, shape: &shape::Shape, random: &mut StdRng) -> serde_json::Value {
    let changes = mutate::changes(document, shape);
    let places: Vec<_> = changes.iter().map(|(path, _)| path).collect::<BTreeSet<_>>().into_iter().collect();
    let Some(place) = places.choose(random) else { return document.clone() };
    let here: Vec<_> = changes.iter().filter(|(path, _)| path == *place).collect();
    mutate::apply(document, here.choose(random).expect("not empty"))
}

/// What is wrong in one of two members of a oneof is known to nobody who takes the last.
const TWO_OF_ONE: [&str; 2] = ["exactly one provider must be set", "only one of zipkin, lightstep"];

/// What the side that says more says.
fn difference(theirs: &Theirs, ours: &Ours) -> Option<(Side, Vec<String>)> {
    let said = |problems: &[Problem]| problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect::<Vec<_>>();
    match (theirs.errors().is_empty(), ours.errors.is_empty()) {
        (true, false) => {
            let said = said(&ours.errors);
            let two = said.iter().find(|text| TWO_OF_ONE.iter().any(|part| text.contains(part))).cloned();
            Some((Side::Stricter, two.map_or(said, |two| vec![two])))
        }
        (false, true) => Some((Side::Laxer, theirs.errors())),
        (true, true) => match (theirs.warnings().is_empty(), ours.warnings.is_empty()) {
            (true, false) => Some((Side::Louder, said(&ours.warnings))),
            (false, true) => Some((Side::Quieter, theirs.warnings().to_vec())),
            _ => None,
        },
        (false, false) => None,
    }
}

/// Without what differs from document to document.
fn outline(text: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    for c in text.chars().take(300) {
        match c {
            '"' => quoted = !quoted,
            '0'..='9' => {}
            _ if quoted => {}
            c => out.push(c),
        }
    }
    out.chars().take(130).collect()
}

#[test]
fn istios_validation_says_the_same_of_the_same_documents() {
    let Some(program) = program() else { return };
    let documents = documents();
    let verdicts = ask::peer(&program, documents.iter().map(ask::of_document).collect());
    let (mut counts, mut used, mut found) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    let (mut taken, mut by_definition) = (0, 0);
    for (seed, theirs) in documents.iter().zip(&verdicts) {
        let ours = ask::here(seed);
        taken += usize::from(ours.errors.is_empty());
        let Some((side, said)) = difference(theirs, &ours) else { continue };
        let known = |text: &String| {
            KNOWN.iter().position(|known| known.side == side && known.says.iter().any(|part| text.contains(part)))
        };
        let rows: Vec<_> = said.iter().map(known).collect();
        if rows.iter().all(Option::is_some) {
            rows.into_iter().flatten().for_each(|row| {
                used.insert(row);
            });
            *counts.entry(side).or_insert(0) += 1;
            continue;
        }
        if ours.by_definition && side != Side::Laxer && std::env::var("DEFINITION").is_err() {
            by_definition += 1;
            continue;
        }
        let unknown = said.iter().zip(&rows).find(|(_, row)| row.is_none()).map_or("", |(text, _)| text);
        let entry = found.entry((side, seed.kind.clone(), outline(unknown))).or_insert((0, seed, said.clone()));
        entry.0 += 1;
        if seed.document.to_string().len() < entry.1.document.to_string().len() {
            (entry.1, entry.2) = (seed, said);
        }
    }
    println!(
        "{} documents, {taken} taken here; meant differences: {counts:?}; told of by definitions: {by_definition}",
        documents.len()
    );
    let list = found.iter().map(|((side, kind, _), (count, seed, said))| {
        format!("{side:?} {kind} ×{count}: {}\n    {}", said.join(" | "), seed.document)
    });
    let list: Vec<_> = list.collect();
    let stale: Vec<_> = (0..KNOWN.len()).filter(|row| !used.contains(row)).map(|row| KNOWN[row].says).collect();
    println!("{}\nnot seen: {stale:?}", list.join("\n"));
    assert!(list.is_empty(), "{} kinds of differences", list.len());
}

type Check = fn(&str) -> Result<(), String>;

/// Istio's small checks of texts, and ours.
const CHECKS: [(&str, Check); 11] = [
    ("ValidateFQDN", names::fqdn),
    ("ValidateHTTPHeaderNameOrJwtClaimRoute", names::match_header_name),
    ("ValidateHTTPHeaderValue", names::header_value),
    ("ValidateIPSubnet", names::ip_or_cidr),
    ("ValidatePortName", names::dns_label),
    ("ValidateProbeHeaderName", names::probe_header_name),
    ("ValidateProxyAddress", names::host_port),
    ("ValidateStrictHTTPHeaderName", names::strict_header_name),
    ("ValidateTrustDomain", names::trust_domain),
    ("ValidateWildcardDomain", names::wildcard_domain),
    ("validateExtensionProviderService", names::provider_service),
];

/// Texts of which a check says something else on purpose, and why.
const KNOWN_TEXTS: &[(&str, &[&str], &str)] = &[
    ("ValidateIPSubnet", &["fe80::1%eth0"], "proxies know no zones of addresses"),
    ("validateExtensionProviderService", &["fe80::1%eth0"], "proxies know no zones of addresses"),
    ("validateExtensionProviderService", &["~/*", "~ns/a.b"], "a provider is not in what is left out"),
    ("ValidateHTTPHeaderNameOrJwtClaimRoute", &["5xx,503"], "no header name has a comma"),
    ("ValidateHTTPHeaderValue", &["%a%"], "Envoy refuses what is no command of its"),
    ("ValidateHTTPHeaderValue", &["%A(b):3%"], "Envoy takes a length after the arguments"),
];

#[test]
fn istios_small_checks_say_the_same_of_the_same_texts() {
    let Some(program) = program() else { return };
    let long: Vec<_> = [63, 64, 255, 256].map(|length| "a".repeat(length)).into();
    let texts: Vec<_> = mutate::TEXTS.iter().copied().chain(long.iter().map(String::as_str)).collect();
    let mut found = Vec::new();
    for (function, check) in CHECKS {
        let verdicts = ask::peer(&program, texts.iter().map(|text| ask::of_text(function, text)).collect());
        for (text, theirs) in texts.iter().zip(verdicts) {
            let known = KNOWN_TEXTS.iter().any(|(of, texts, _)| *of == function && texts.contains(text));
            if theirs.errors().is_empty() != check(text).is_ok() && !known {
                found.push(format!("{function} {text:?}: Istio {:?}, here {:?}", theirs.errors(), check(text)));
            }
        }
    }
    println!("{} checks of {} texts", CHECKS.len(), texts.len());
    assert!(found.is_empty(), "{}", found.join("\n"));
}
