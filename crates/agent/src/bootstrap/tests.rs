use super::*;
use crate::environment::{Role, Variables};

fn settings() -> Settings {
    let vars = Variables::from_pairs([
        ("POD_NAME", "a-b-c"),
        ("INSTANCE_IP", "10.0.0.7"),
        ("ISTIO_METAJSON_LABELS", r#"{"istio-locality":"eu.north.rack1"}"#),
    ]);
    Settings::from_variables(Role::Sidecar, None, &vars).unwrap()
}

#[test]
fn a_supervised_envoy_marks_its_connections_where_capture_goes_by_mark() {
    let marked = Settings { socket_mark: Some(1337), ..settings() };
    let bind = |settings: &Settings| {
        let json = envoy(settings, &Sockets::below(Path::new("x")));
        let message: meltemi_proto::envoy::config::bootstrap::v3::Bootstrap =
            meltemi_proto::json::from_value(&json).unwrap();
        message.cluster_manager.and_then(|manager| manager.upstream_bind_config)
    };
    assert!(bind(&settings()).is_none());
    let options = bind(&marked).unwrap().socket_options;
    assert_eq!((options[0].level, options[0].name), (1, 36));
}

#[test]
fn both_bootstraps_are_valid_messages() {
    for json in [envoy(&settings(), &Sockets::below(Path::new("/run/x"))), own(&settings())] {
        let message: meltemi_proto::envoy::config::bootstrap::v3::Bootstrap =
            meltemi_proto::json::from_value(&json).unwrap();
        let node = message.node.unwrap();
        assert_eq!(node.id, "sidecar~10.0.0.7~a-b-c.default~default.svc.cluster.local");
        assert_eq!(node.locality.unwrap().sub_zone, "rack1");
    }
}

#[test]
fn a_proxy_that_is_to_know_its_own_workload_has_a_cluster_of_it() {
    let mut told = settings();
    told.metadata.insert("ENABLE_SELF_DISCOVERY".into(), json!("true"));
    for (make, others) in
        [(&envoy as &dyn Fn(&Settings, &Sockets) -> Value, 4), (&|settings: &Settings, _: &Sockets| own(settings), 0)]
    {
        let read = |settings: &Settings| {
            let json = make(settings, &Sockets::below(Path::new("x")));
            let message: meltemi_proto::envoy::config::bootstrap::v3::Bootstrap =
                meltemi_proto::json::from_value(&json).unwrap();
            let clusters = message.static_resources.map(|resources| resources.clusters).unwrap_or_default();
            let local = message.cluster_manager.map(|manager| manager.local_cluster_name).unwrap_or_default();
            (local, clusters)
        };
        let (local, clusters) = read(&settings());
        assert_eq!((local.as_str(), clusters.len()), ("", others));
        let (local, clusters) = read(&told);
        assert_eq!((local.as_str(), clusters.len()), ("local_cluster", others + 1));
        assert_eq!(clusters[others].name, local);
    }
}

#[test]
fn our_own_bootstrap_holds_nothing_without_effect() {
    let text = own(&settings()).to_string();
    // There is one version for us, and plan says so of whoever names it.
    assert!(!text.contains("_api_version"), "{text}");
    assert!(
        envoy(&settings(), &Sockets::below(Path::new("x"))).to_string().contains("\"resource_api_version\":\"V3\"")
    );
}
