//! No bytes from a control plane make the conversions panic.

#![allow(clippy::unwrap_used)]

use meltemi_proto::Any;
use proptest::prelude::*;
use serde_json::Value;

fn convert_all(bytes: &[u8]) {
    let any = |name: &str| Any { type_url: format!("type.googleapis.com/{name}"), value: bytes.to_vec().into() };
    for name in [
        "envoy.config.listener.v3.Listener",
        "envoy.config.route.v3.RouteConfiguration",
        "envoy.config.cluster.v3.Cluster",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        "envoy.config.bootstrap.v3.Bootstrap",
        "envoy.extensions.transport_sockets.tls.v3.Secret",
    ] {
        // Only that it returns counts.
        let _ = meltemi_plan::support::check_resource(name, bytes);
        let any = any(name);
        let _ = meltemi_proto::unpack_listener(&any).map(|value| meltemi_plan::listener(&value));
        let _ = meltemi_proto::unpack_route_configuration(&any).map(|value| meltemi_plan::route_configuration(&value));
        let _ = meltemi_proto::unpack_cluster(&any).map(|value| meltemi_plan::cluster(&value));
        let _ = meltemi_proto::unpack_load_assignment(&any).map(|value| meltemi_plan::load_assignment(&value));
        let _ = meltemi_proto::unpack_bootstrap(&any).map(|value| meltemi_plan::bootstrap(&value));
        let _ = meltemi_proto::unpack_secret(&any).map(|value| meltemi_plan::secret(&value));
    }
}

/// A valid bootstrap that touches most conversions.
fn seed() -> Vec<u8> {
    let document: Value = serde_saphyr::from_str(include_str!("seed.yaml")).unwrap();
    let proto: meltemi_proto::envoy::config::bootstrap::v3::Bootstrap =
        meltemi_proto::json::from_value(&document).unwrap();
    meltemi_plan::bootstrap(&proto).unwrap();
    meltemi_proto::encode(&proto).to_vec()
}

/// The seed's listeners, clusters and so on each by itself.
fn parts() -> Vec<Vec<u8>> {
    let document: Value = serde_saphyr::from_str(include_str!("seed.yaml")).unwrap();
    let proto: meltemi_proto::envoy::config::bootstrap::v3::Bootstrap =
        meltemi_proto::json::from_value(&document).unwrap();
    let resources = proto.static_resources.unwrap();
    let listeners = resources.listeners.iter().map(|value| meltemi_proto::encode(value).to_vec());
    let clusters = resources.clusters.iter().map(|value| meltemi_proto::encode(value).to_vec());
    listeners.chain(clusters).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        convert_all(&bytes);
    }

    #[test]
    fn changed_resources_do_not_panic(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<proptest::sample::Index>(),
        which in any::<proptest::sample::Index>(),
        truncate in proptest::bool::weighted(0.1),
    ) {
        let all = parts();
        let mut bytes = all[which.index(all.len())].clone();
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        convert_all(&bytes);
    }
}

#[test]
fn the_seed_is_accepted_whole() {
    convert_all(&seed());
}
