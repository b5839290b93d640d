use meltemi_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

use super::*;

fn status(sent: &str, acked: &str, rejection: Option<&str>) -> TypeStatus {
    TypeStatus {
        sent_nonce: sent.to_owned(),
        acked_nonce: acked.to_owned(),
        rejection: rejection.map(str::to_owned),
        ..TypeStatus::default()
    }
}

#[test]
fn a_type_is_synced_when_what_was_sent_last_is_accepted() {
    for (sent, acked, rejection, expected) in [
        ("", "", None, ConfigStatus::NotSent),
        ("2", "", None, ConfigStatus::Stale),
        ("2", "1", None, ConfigStatus::Stale),
        ("2", "2", None, ConfigStatus::Synced),
        ("2", "1", Some("no such cluster"), ConfigStatus::Error),
    ] {
        assert_eq!(config_status(&status(sent, acked, rejection)), expected, "{sent:?} {acked:?} {rejection:?}");
    }
}

#[test]
fn debug_requests_are_told_from_others_in_both_variants() {
    let of = |type_url: &str| {
        let (delta, sotw) = (type_url.to_owned(), type_url.to_owned());
        let delta = Inquiry::of(&Incoming::Delta(DeltaDiscoveryRequest { type_url: delta, ..Default::default() }));
        let request = DiscoveryRequest { type_url: sotw, ..Default::default() };
        let found = Inquiry::of(&Incoming::StateOfTheWorld(request));
        assert_eq!(delta.is_some(), found.is_some(), "{type_url}");
        found
    };
    for type_url in [DEBUG, DEBUG_SYNC, DEBUG_CONFIG_DUMP] {
        assert_eq!(of(type_url).unwrap().unwrap().type_url, type_url);
    }
    assert!(of("type.googleapis.com/envoy.config.cluster.v3.Cluster").is_none());
    assert!(of("istio.io/debugging").is_none());
    let refused = of("istio.io/debug/adsz").unwrap().err().unwrap();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("istio.io/debug/adsz"), "{refused}");
}

#[test]
fn a_page_is_asked_for_by_one_name() {
    let named = |names: &[&str]| Inquiry {
        type_url: DEBUG,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        nonce: String::new(),
    };
    assert_eq!(named(&["syncz"]).one_name().unwrap(), "syncz");
    for names in [&[] as &[&str], &["syncz", "adsz"]] {
        assert_eq!(named(names).one_name().unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
