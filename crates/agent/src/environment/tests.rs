use super::*;

fn read(pairs: &[(&str, &str)]) -> Result<Settings, EnvironmentError> {
    let base = [("POD_NAME", "catalog-v1-6b7f5d9c4-x2x8q"), ("POD_NAMESPACE", "shop"), ("INSTANCE_IP", "10.0.0.7")];
    let vars = Variables::from_pairs(base.iter().chain(pairs).copied());
    Settings::from_variables(Role::Sidecar, None, &vars)
}

#[test]
fn a_node_is_named_as_istio_names_it() {
    let settings = read(&[("ISTIO_METAJSON_LABELS", r#"{"app":"catalog"}"#)]).unwrap();
    assert_eq!(settings.node_id(), "sidecar~10.0.0.7~catalog-v1-6b7f5d9c4-x2x8q.shop~shop.svc.cluster.local");
    assert_eq!(settings.node_cluster(), "catalog.shop");
    assert_eq!(settings.metadata["WORKLOAD_NAME"], "catalog-v1");
    assert_eq!(settings.metadata["NAMESPACE"], "shop");
}

#[test]
fn metadata_comes_from_prefixed_variables() {
    let settings = read(&[
        ("ISTIO_META_CLUSTER_ID", "c1"),
        ("ISTIO_META_WORKLOAD_NAME", "cat"),
        ("ISTIO_METAJSON_LABELS", r#"{"version":"v1"}"#),
    ])
    .unwrap();
    assert_eq!(settings.metadata["CLUSTER_ID"], "c1");
    assert_eq!(settings.metadata["WORKLOAD_NAME"], "cat");
    assert_eq!(settings.metadata["LABELS"]["version"], "v1");
}

#[test]
fn proxy_config_gives_addresses_and_durations() {
    let yaml = "discoveryAddress: d.example:15012\nconcurrency: 3\ndrainDuration: 1m5s\nproxyMetadata:\n  ISTIO_META_DNS_CAPTURE: \"true\"\n";
    let settings = read(&[("PROXY_CONFIG", yaml)]).unwrap();
    assert_eq!(settings.discovery_address, "d.example:15012");
    assert_eq!(settings.ca_address, "d.example:15012");
    assert_eq!(settings.concurrency, Some(3));
    assert_eq!(settings.drain_duration, Duration::from_secs(65));
    assert!(settings.dns_capture);
}

#[test]
fn discovery_is_told_the_version_and_the_configuration_of_the_proxy() {
    let settings = read(&[]).unwrap();
    assert_eq!(settings.metadata["ISTIO_VERSION"], env!("CARGO_PKG_VERSION"));
    assert_eq!(settings.metadata["PROXY_CONFIG"], serde_json::json!({}));
    let ports = (&settings.metadata["ENVOY_STATUS_PORT"], &settings.metadata["ENVOY_PROMETHEUS_PORT"]);
    assert_eq!(ports, (&serde_json::json!(15021), &serde_json::json!(15090)), "numbers, or Istio refuses the node");
    let told = read(&[
        ("PROXY_CONFIG", "{\"concurrency\":2,\"tracing\":{\"sampling\":5}}\n"),
        ("ISTIO_META_ISTIO_VERSION", "1.30.0"),
        ("ISTIO_METAJSON_PROXY_CONFIG", "{\"concurrency\":3}"),
    ])
    .unwrap();
    assert_eq!(told.metadata["ISTIO_VERSION"], "1.30.0");
    let expected = serde_json::json!({"concurrency": 3, "tracing": {"sampling": 5}});
    assert_eq!(told.metadata["PROXY_CONFIG"], expected);
}

#[test]
fn what_is_wrong_is_named() {
    for (pairs, text) in [
        (vec![("INSTANCE_IP", "nowhere")], "INSTANCE_IP=\"nowhere\""),
        (vec![("PROXY_CONFIG", "drainDuration: soon")], "drainDuration=\"soon\""),
        (vec![("ISTIO_METAJSON_X", "[]")], "ISTIO_METAJSON_X"),
        (vec![("ENVOY_STATUS_PORT", "70000")], "ENVOY_STATUS_PORT"),
        (vec![("SPIFFE_ENDPOINT_SOCKET", "tcp://127.0.0.1:8000")], "not of the form unix:///path"),
        (vec![("SPIFFE_ENDPOINT_SOCKET", "unix://run/agent.sock")], "the path is not absolute"),
        (vec![("SPIFFE_ENDPOINT_SOCKET", "unix:///run/agent.sock?a")], "a query or a fragment"),
        (vec![("WORKLOAD_IDENTITY_SOCKET_FILE", "../other/socket")], "not the name of a file"),
    ] {
        let error = read(&pairs).expect_err(text).to_string();
        assert!(error.contains(text), "{error}");
    }
    let error = Settings::from_variables(Role::Router, None, &Variables::from_pairs([])).err().unwrap();
    assert!(error.to_string().contains("INSTANCE_IP"), "{error}");
}

#[test]
fn durations_are_gos() {
    for (text, expected) in [
        ("45s", Some(45_000)),
        ("1h30m", Some(5_400_000)),
        ("100ms", Some(100)),
        ("1.5s", Some(1500)),
        ("0", Some(0)),
        ("", None),
        ("5", None),
        ("s", None),
        ("5x", None),
    ] {
        assert_eq!(go_duration(text), expected.map(Duration::from_millis), "{text:?}");
    }
}

#[test]
fn certificates_are_renewed_at_half_life_or_as_told() {
    let renewal = read(&[]).unwrap().renewal;
    assert_eq!((renewal.after(0.0), renewal.after(0.5)), (0.49, 0.5));
    let told = [("SECRET_GRACE_PERIOD_RATIO", "0.25"), ("SECRET_GRACE_PERIOD_RATIO_JITTER", "0")];
    assert_eq!(read(&told).unwrap().renewal.after(0.9), 0.75);
    let wrong = read(&[("SECRET_GRACE_PERIOD_RATIO", "1.5")]).unwrap_err().to_string();
    assert_eq!(wrong, "SECRET_GRACE_PERIOD_RATIO=\"1.5\": not between 0 and 1");
}

#[test]
fn a_certificate_comes_from_files_from_another_agent_or_from_the_authority() {
    let base = tempfile::tempdir().unwrap();
    let source = |pairs: &[(&str, &str)]| {
        CertificateSource::from_variables(&Variables::from_pairs(pairs.iter().copied()), base.path()).unwrap()
    };
    let files = |folder: &str, names: [&str; 3]| {
        let [chain, key, roots] = names.map(|name| base.path().join(folder).join(name));
        CertificateSource::Files(CertificateFiles { chain, key, roots })
    };
    assert_eq!(source(&[]), CertificateSource::Authority);

    let uds = base.path().join("var/run/secrets/workload-spiffe-uds");
    std::fs::create_dir_all(&uds).unwrap();
    std::fs::write(uds.join("socket"), "").unwrap();
    std::fs::write(uds.join("other.sock"), "").unwrap();
    assert_eq!(source(&[]), CertificateSource::Socket(uds.join("socket")));
    assert_eq!(
        source(&[("WORKLOAD_IDENTITY_SOCKET_FILE", "other.sock")]),
        CertificateSource::Socket(uds.join("other.sock"))
    );

    let mounted = base.path().join("var/run/secrets/workload-spiffe-credentials");
    std::fs::create_dir_all(&mounted).unwrap();
    let names = ["certificates.pem", "private_key.pem", "ca_certificates.pem"];
    std::fs::write(mounted.join(names[0]), "").unwrap();
    assert_eq!(source(&[]), CertificateSource::Socket(uds.join("socket")), "one file is not enough");
    names.iter().for_each(|name| std::fs::write(mounted.join(name), "").unwrap());
    assert_eq!(source(&[]), files("var/run/secrets/workload-spiffe-credentials", names));

    for endpoint in ["unix:///run/spire/agent.sock", "unix:/run/spire/agent.sock"] {
        let named = CertificateSource::WorkloadApi("/run/spire/agent.sock".into());
        assert_eq!(source(&[("SPIFFE_ENDPOINT_SOCKET", endpoint)]), named, "before what is only found");
    }

    let default = ["cert-chain.pem", "key.pem", "root-cert.pem"];
    assert_eq!(source(&[("FILE_MOUNTED_CERTS", "true")]), files("etc/certs", default), "there or not yet");
    let named = source(&[
        ("FILE_MOUNTED_CERTS", "true"),
        ("ISTIO_META_TLS_CLIENT_CERT_CHAIN", "/c.pem"),
        ("ISTIO_META_TLS_CLIENT_KEY", "/k.pem"),
        ("ISTIO_META_TLS_CLIENT_ROOT_CERT", "/r.pem"),
    ]);
    let [chain, key, roots] = ["/c.pem", "/k.pem", "/r.pem"].map(PathBuf::from);
    assert_eq!(named, CertificateSource::Files(CertificateFiles { chain, key, roots }));
}

#[test]
fn proxy_metadata_says_where_the_certificate_is() {
    let yaml = "proxyMetadata:\n  FILE_MOUNTED_CERTS: \"true\"\n  ISTIO_META_TLS_CLIENT_KEY: /k.pem\n";
    let settings = read(&[("PROXY_CONFIG", yaml)]).unwrap();
    let CertificateSource::Files(files) = settings.certificate_source else { panic!("not from files") };
    assert_eq!(files.key, Path::new("/k.pem"));
}
