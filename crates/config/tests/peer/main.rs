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

/// Side, kind, and what is said without what differs from document to document.
type Sort = (Side, String, String);

/// Differences of one sort: how many, and the shortest document with what is said of it.
type Found = (usize, String, Vec<String>);

/// What came out of all documents.
#[derive(Default)]
struct Outcome {
    taken: usize,
    /// Differences that are meant, by their reasons.
    meant: BTreeMap<&'static str, usize>,
    /// Refused by the definition of the kind, whatever Istio's webhook says.
    by_definition: usize,
    found: BTreeMap<Sort, Found>,
}

impl Outcome {
    fn add(&mut self, seed: &Seed, theirs: &Theirs) {
        let ours = ask::here(seed);
        self.taken += usize::from(ours.errors.is_empty());
        let Some((side, said)) = difference(theirs, &ours) else { return };
        let reason = |text: &String| {
            let row = KNOWN.iter().find(|row| row.side == side && row.says.iter().any(|part| text.contains(part)));
            row.map(|row| row.reason)
        };
        match said.iter().find(|text| reason(text).is_none()) {
            None => said.iter().filter_map(reason).for_each(|reason| *self.meant.entry(reason).or_default() += 1),
            Some(_) if ours.by_definition && side != Side::Laxer => self.by_definition += 1,
            Some(text) => {
                let (sort, document) = ((side, seed.kind.clone(), outline(text)), seed.document.to_string());
                let (count, shortest, of_it) =
                    self.found.entry(sort).or_insert_with(|| (0, document.clone(), said.clone()));
                *count += 1;
                if document.len() < shortest.len() {
                    (*shortest, *of_it) = (document, said);
                }
            }
        }
    }

    fn told(&self) -> String {
        let line = |((side, kind, _), (count, document, said)): (&Sort, &Found)| {
            format!("{side:?} {kind} ×{count}: {}\n    {document}\n", said.join(" | "))
        };
        self.found.iter().map(line).collect()
    }
}

#[test]
fn istios_validation_says_the_same_of_the_same_documents() {
    let Some(program) = program() else { return };
    let documents = documents();
    let verdicts = ask::peer(&program, documents.iter().map(ask::of_document).collect());
    let mut outcome = Outcome::default();
    documents.iter().zip(&verdicts).for_each(|(seed, theirs)| outcome.add(seed, theirs));
    let (count, taken, by_definition) = (documents.len(), outcome.taken, outcome.by_definition);
    println!(
        "{count} documents, {taken} taken; {by_definition} differences are of what definitions refuse anyway; meant:"
    );
    outcome.meant.iter().for_each(|(reason, count)| println!("{count:6} {reason}"));
    assert!(outcome.found.is_empty(), "{}", outcome.told());
    assert!(taken > count / 10 && taken < count, "{taken} of {count}");
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
