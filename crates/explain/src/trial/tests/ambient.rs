//! What a node proxy's policy decides.

use meltemi_proto::istio::security::Authorization;
use meltemi_proto::json as proto_json;

use super::super::ambient::decide;
use super::super::{Call, Certificate, Mentions, SEED, ambient};

fn policy(text: &str) -> Authorization {
    proto_json::from_text(&format!("name: p\nnamespace: a\n{text}")).unwrap()
}

fn of(uri: &str, port: u16) -> Call {
    let certificate = (!uri.is_empty()).then(|| Certificate::of_uri(uri));
    let mut call = Call { certificate, source: "10.1.2.3".parse().unwrap(), ..Call::plain(false) };
    call.destination.set_port(port);
    call
}

#[test]
fn groups_are_alternatives_of_rules_that_all_match() {
    let policy = policy(
        "
groups:
- rules:
  - matches: [{namespaces: [{prefix: x}], notPrincipals: [{suffix: /bad}]}, {serviceAccounts: [{namespace: v, serviceAccount: db}]}]
  - matches: [{destinationPorts: [80]}]
- rules:
  - matches: [{sourceIps: [{address: CgECAA==, length: 24}], destinationPorts: [81]}]
- rules:
  - matches: [{}]
- rules: [{matches: []}, {matches: [{destinationPorts: [82]}]}]
",
    );
    for (uri, port, expected) in [
        ("spiffe://td/ns/xy/sa/z", 80, true),
        ("spiffe://td/ns/xy/sa/bad", 80, false),
        ("spiffe://td/ns/v/sa/db", 80, true),
        ("spiffe://td/ns/v/sa/web", 80, false),
        ("", 80, false),
        ("", 81, true),
        ("", 82, true),
        ("", 83, false),
    ] {
        let verdict = decide(&policy, &of(uri, port));
        assert_eq!((verdict.allowed, verdict.policy.is_some()), (expected, expected), "{uri} {port}");
    }
    let deny = Authorization { action: 1, ..policy.clone() };
    assert!(!decide(&deny, &of("", 81)).allowed && decide(&deny, &of("", 83)).allowed);
    assert!(decide(&Authorization { dry_run: true, ..deny }, &of("", 81)).allowed);
    assert!(!decide(&Authorization { groups: Vec::new(), ..policy }, &of("", 81)).allowed);
}

#[test]
fn a_match_that_is_a_little_wrong_shows_in_a_connection() {
    let text = "
groups:
- rules:
  - matches: [{namespaces: [{exact: x}], notPrincipals: [{prefix: td/ns/x/sa/bad}]}]
  - matches: [{destinationPorts: [80]}]
- rules:
  - matches: [{notSourceIps: [{address: CgECAA==, length: 24}]}]
  - matches: [{serviceAccounts: [{namespace: v, serviceAccount: db}]}]
";
    let expected = policy(text);
    let same = ambient(&expected, &expected, Mentions::new(), SEED);
    assert!(same.disagreement.is_none() && same.allowed > 10 && same.denied > 10, "{same:?}");
    assert_eq!(same.notes, Vec::<String>::new());
    for (right, wrong) in [
        ("exact: x", "prefix: x"),
        ("prefix: td", "suffix: td"),
        ("[80]", "[81]"),
        ("length: 24", "length: 25"),
        ("notSourceIps", "sourceIps"),
        ("serviceAccount: db", "serviceAccount: dc"),
    ] {
        let found = policy(&text.replacen(right, wrong, 1));
        assert!(ambient(&expected, &found, Mentions::new(), SEED).disagreement.is_some(), "{wrong}");
    }
}
