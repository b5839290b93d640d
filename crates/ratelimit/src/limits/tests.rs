use super::*;
use meltemi_config::parse_rate_limit_configuration;
use meltemi_proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proptest::prelude::*;

fn limits(text: &str) -> Limits {
    let document = parse_rate_limit_configuration("limits.yaml", text).expect("valid").value;
    Limits::new(&[document], &Stats::new())
}

fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    let entry = |(key, value): &(&str, &str)| Entry { key: (*key).to_owned(), value: (*value).to_owned() };
    RateLimitDescriptor { entries: entries.iter().map(entry).collect(), ..Default::default() }
}

const MESSAGING: &str = r#"
domain: messaging
descriptors:
- key: kind
  value: marketing
  descriptors:
  - key: to
    rate_limit: {unit: day, requests_per_unit: 5}
  - key: to
    value: "0"
    rate_limit: {unlimited: true}
- key: to
  rate_limit: {unit: day, requests_per_unit: 100}
- key: file
  value: "a*"
  share_threshold: true
  rate_limit: {unit: hour, requests_per_unit: 7}
- key: file
  value: "ab*"
  rate_limit: {unit: hour, requests_per_unit: 8}
- key: file
  value: abc
  rate_limit: {unit: hour, requests_per_unit: 9}
"#;

#[test]
fn the_exact_value_is_before_patterns_and_these_before_any_value() {
    let limits = limits(MESSAGING);
    let requests = |entries: &[(&str, &str)]| {
        let found = limits.find("messaging", &descriptor(entries)).expect("the domain");
        found.map(|found| found.limit.window.map(|window| window.requests))
    };
    for (entries, expected) in [
        (&[("to", "1")][..], Some(Some(100))),
        (&[("kind", "marketing"), ("to", "1")], Some(Some(5))),
        (&[("kind", "marketing"), ("to", "0")], Some(None)),
        (&[("kind", "other"), ("to", "1")], None),
        (&[("kind", "marketing")], None),
        (&[("kind", "marketing"), ("to", "1"), ("more", "")], None),
        (&[("file", "abc")], Some(Some(9))),
        // The first pattern of the document.
        (&[("file", "abd")], Some(Some(7))),
        (&[("file", "b")], None),
        (&[], None),
    ] {
        assert_eq!(requests(entries), expected, "{entries:?}");
    }
    assert!(limits.find("elsewhere", &descriptor(&[("to", "1")])).is_none());
}

#[test]
fn values_of_a_shared_pattern_have_one_count() {
    let limits = limits(MESSAGING);
    let found = limits.find("messaging", &descriptor(&[("file", "axx")])).flatten().expect("a limit");
    assert_eq!(found.shared, [Some("a*".into())]);
    let found = limits.find("messaging", &descriptor(&[("to", "1")])).flatten().expect("a limit");
    assert_eq!(found.shared, [None]);
}

#[test]
fn a_star_is_any_number_of_characters() {
    for (pattern, value, expected) in [
        ("*", "", true),
        ("a*", "a", true),
        ("a*", "ba", false),
        ("*a", "ba", true),
        ("a*a", "a", false),
        ("a*a", "aa", true),
        ("a*b*c", "a--b--c", true),
        ("a*b*c", "a--c", false),
        ("a*b*b", "ab", false),
        ("*x*", "axb", true),
        ("a**b", "ab", true),
    ] {
        assert_eq!(Pattern::new(&pattern.into()).matches(value), expected, "{pattern} {value}");
    }
}

/// A pattern by trying each length for each `*`.
fn glob(pattern: &str, value: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == value,
        Some((before, after)) => value.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| glob(after, &rest[at..]))
        }),
    }
}

/// The limit by walking the document.
fn walk<'a>(list: &'a [LimitDescriptor], entries: &[(String, String)]) -> Option<&'a LimitBlock> {
    let ((key, value), rest) = entries.split_first()?;
    let of_key = || list.iter().filter(|own| *own.key == **key);
    let exact = of_key().find(|own| !own.value.is_empty() && !own.value.contains('*') && *own.value == **value);
    let pattern = || of_key().find(|own| own.value.contains('*') && glob(&own.value, value));
    let branch = exact.or_else(pattern).or_else(|| of_key().find(|own| own.value.is_empty()))?;
    if rest.is_empty() { branch.rate_limit.as_ref() } else { walk(&branch.descriptors, rest) }
}

fn descriptors(depth: u32) -> BoxedStrategy<Vec<LimitDescriptor>> {
    let below = if depth == 0 { Just(Vec::new()).boxed() } else { descriptors(depth - 1) };
    let one = ("[ab]", "[xy*]{0,3}", prop::option::of(1u32..100), below).prop_map(|(key, value, requests, below)| {
        let block = |requests_per_unit| LimitBlock { requests_per_unit, unit: "day".into(), ..LimitBlock::default() };
        LimitDescriptor {
            key: key.into(),
            value: value.into(),
            rate_limit: requests.map(block),
            descriptors: below,
            ..LimitDescriptor::default()
        }
    });
    let distinct = |mut list: Vec<LimitDescriptor>| {
        let mut known = std::collections::BTreeSet::new();
        list.retain(|own| known.insert((own.key.clone(), own.value.clone())));
        list
    };
    prop::collection::vec(one, 0..6).prop_map(distinct).boxed()
}

proptest! {
    #[test]
    fn look_ups_find_what_a_walk_over_the_document_finds(
        list in descriptors(2),
        requests in prop::collection::vec(prop::collection::vec(("[ab]", "[xy]{0,3}"), 1..4), 1..20),
    ) {
        let document = RateLimitConfiguration { domain: "d".into(), descriptors: list };
        let limits = Limits::new(std::slice::from_ref(&document), &Stats::new());
        for entries in requests {
            let pairs: Vec<_> = entries.iter().map(|(key, value)| (&**key, &**value)).collect();
            let found = limits.find("d", &descriptor(&pairs)).flatten();
            let found = found.and_then(|found| found.limit.window).map(|window| window.requests);
            prop_assert_eq!(found, walk(&document.descriptors, &entries).map(|block| block.requests_per_unit));
        }
    }
}
