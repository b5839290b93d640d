use super::*;
use crate::proxy::Arguments;
use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    proxy: Arguments,
}

fn given(line: &str) -> Vec<&'static str> {
    let words = ["proxy", "-c", "envoy.yaml"].into_iter().chain(line.split_whitespace());
    Cli::try_parse_from(words).unwrap().proxy.without_effect().collect()
}

#[test]
fn every_flag_of_envoy_is_taken() {
    for name in SWITCHES {
        assert_eq!(given(&format!("--{name}")), [*name]);
    }
    for name in HOLDS {
        assert!(given(&format!("--{name}")).is_empty());
    }
    for name in VALUES {
        assert_eq!(given(&format!("--{name} 1")), [*name]);
    }
    assert_eq!(given("--stats-tag a:b --stats-tag c:d"), ["stats-tag"]);
    assert_eq!(given("--log-path /tmp/l --admin-address-path /tmp/a --service-zone z"), Vec::<&str>::new());
}

#[test]
fn a_flag_of_nobody_is_a_usage_error() {
    assert!(Cli::try_parse_from(["proxy", "-c", "envoy.yaml", "--no-such-flag"]).is_err());
    assert!(Cli::try_parse_from(["proxy", "-c", "envoy.yaml", "--base-id"]).is_err());
}
