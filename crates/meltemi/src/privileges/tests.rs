use super::*;
use clap::Parser;
use serde_json::json;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

fn flags(words: &[&str]) -> Result<Flags, clap::Error> {
    Cli::try_parse_from(std::iter::once(&"x").chain(words)).map(|cli| cli.flags)
}

#[test]
fn a_line_of_an_id_map_covers_its_range() {
    for (line, covered) in [
        ("         0          0 4294967295", true),
        ("0 1000 1", false),
        ("0 0 1337", false),
        ("0 0 1338", true),
        ("1337 100000 1", true),
        ("1338 0 10", false),
        ("", false),
        ("0 0", false),
    ] {
        assert_eq!(covers(line, PROXY), covered, "{line:?}");
    }
}

#[test]
fn only_what_is_transparent_keeps_the_network_s_capabilities() {
    let network = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
    let of = |listener: serde_json::Value| {
        let bootstrap = json!({ "static_resources": { "listeners": [listener] } });
        let bootstrap: Bootstrap = meltemi_proto::json::from_value(&bootstrap).unwrap();
        flags(&[]).unwrap().of_bootstrap(&bootstrap).kept
    };
    for (listener, needs) in [
        (json!({}), false),
        (json!({ "transparent": false }), false),
        (json!({ "transparent": true }), true),
        (json!({ "freebind": true }), true),
        (json!({ "socket_options": [{ "level": 1, "name": 36, "int_value": 1337 }] }), true),
    ] {
        let kept = of(listener.clone());
        assert_eq!(kept.contains(network), needs, "{listener}");
        assert!(kept.contains(CapabilitySet::NET_BIND_SERVICE) && !kept.contains(CapabilitySet::SYS_ADMIN));
    }
    let kept = |words: &[&str]| flags(words).unwrap().kept(false);
    assert_eq!(kept(&["--keep-capability", "NET_RAW"]), CapabilitySet::NET_BIND_SERVICE | CapabilitySet::NET_RAW);
    assert!(flags(&["--keep-capability", "SYS_ADMIN"]).is_err());
}

#[test]
fn the_group_is_the_user_s_unless_it_is_named() {
    let asked = |words: &[&str]| flags(words).unwrap().asked();
    assert_eq!(asked(&[]), None);
    assert_eq!(asked(&["--user", "7"]), Some((7, 7)));
    assert_eq!(asked(&["--user", "7", "--group", "8"]), Some((7, 8)));
    assert!(flags(&["--group", "8"]).is_err());
}
