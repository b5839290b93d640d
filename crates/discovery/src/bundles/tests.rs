use std::sync::Mutex;

use anyhow::anyhow;
use meltemi_config::mesh::CertificateData;
use serde_json::json;

use super::*;

fn root() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap();
    (STANDARD.encode(root.der()), root.pem())
}

fn key(certificate: &str) -> Value {
    json!({ "use": "x509-svid", "kty": "EC", "x5c": [certificate] })
}

fn token_key(id: &str) -> Value {
    json!({ "use": "jwt-svid", "kty": "EC", "crv": "P-256", "kid": id, "x": "", "y": "" })
}

#[test]
fn the_roots_of_a_bundle_are_its_keys_for_x509_svids() {
    let ((one, one_pem), (two, _)) = (root(), root());
    let token = json!({ "use": "jwt-svid", "kty": "EC", "kid": "a" });
    let found = bundle(&json!({ "keys": [key(&one), token, key(&two)], "spiffe_refresh_hint": 300 })).unwrap();
    assert_eq!(found.roots.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(found.roots.replace(['\r', '\n'], "").contains(one_pem.lines().nth(1).unwrap()));
    assert_eq!(found.refresh, Duration::from_secs(300));
    assert_eq!(found.keys, BundleKeys::of_bundle(&json!({ "keys": [token] })));
    assert!(!found.keys.is_empty());
    for (hint, refresh) in
        [(json!(1), SHORTEST_REFRESH), (json!(1u64 << 40), LONGEST_REFRESH), (json!(null), DEFAULT_REFRESH)]
    {
        assert_eq!(bundle(&json!({ "keys": [key(&one)], "spiffe_refresh_hint": hint })).unwrap().refresh, refresh);
    }
    for wrong in [
        json!({}),
        json!({ "keys": [] }),
        json!({ "keys": [token] }),
        json!({ "keys": [key("?")] }),
        json!({ "keys": [key(&STANDARD.encode("garbage"))] }),
        json!({ "keys": [{ "use": "x509-svid" }] }),
        json!({ "keys": [{ "use": "x509-svid", "x5c": [one, two] }] }),
    ] {
        assert!(bundle(&wrong).is_err(), "{wrong}");
    }
}

/// What each URL answers now.
#[derive(Clone, Default)]
struct Servers(Arc<Mutex<BTreeMap<String, &'static str>>>);

impl Servers {
    fn answer(&self, url: &str, roots: Option<&'static str>) {
        let mut all = self.0.lock().unwrap();
        match roots {
            Some(roots) => drop(all.insert(url.to_owned(), roots)),
            None => drop(all.remove(url)),
        }
    }
}

impl Fetch for Servers {
    async fn fetch(&self, url: &str) -> Result<Bundle> {
        let roots = self.0.lock().unwrap().get(url).copied().ok_or_else(|| anyhow!("no answer"))?;
        let keys = BundleKeys::of_bundle(&json!({ "keys": [token_key(roots)] }));
        Ok(Bundle { roots: roots.into(), keys, refresh: DEFAULT_REFRESH })
    }
}

fn mesh(urls: &[&str]) -> Shared<MeshConfig> {
    let data = |url: &&str| CertificateData { spiffe_bundle_url: Some((*url).into()), ..CertificateData::default() };
    Shared::new(MeshConfig { ca_certificates: urls.iter().map(data).collect(), ..MeshConfig::default() })
}

fn roots(mesh: &Shared<MeshConfig>) -> Vec<Option<&str>> {
    mesh.ca_certificates.iter().map(|data| data.pem.as_deref()).collect()
}

#[tokio::test(start_paused = true)]
async fn roots_that_are_found_stand_in_the_mesh_configuration_and_outlive_their_server() {
    let servers = Servers::default();
    servers.answer("a", Some("one"));
    let mut bundles = Bundles::new(servers.clone(), mesh(&["a", "b"]), (Arc::default(), &Known::default()));
    assert_eq!(roots(&bundles.changed().await), [Some("one"), None]);
    servers.answer("b", Some("two"));
    assert_eq!(roots(&bundles.changed().await), [Some("one"), Some("two")]);
    servers.answer("a", None);
    servers.answer("b", Some("three"));
    assert_eq!(roots(&bundles.changed().await), [Some("one"), Some("three")], "the last good roots stay");
    assert_eq!(roots(&bundles.resolve(mesh(&["b"]))), [Some("three")]);
    assert_eq!(roots(&bundles.resolve(mesh(&["a"]))), [None], "forgotten with its URL");
    assert_eq!(roots(&bundles.resolve(mesh(&[]))), []);
    let quiet = tokio::time::timeout(LONGEST_REFRESH, bundles.changed()).await;
    assert!(quiet.is_err(), "nobody is asked");
}

#[tokio::test(start_paused = true)]
async fn a_mesh_configuration_has_only_so_many_urls_asked() {
    let servers = Servers::default();
    let urls: Vec<String> = (0..=MAX_BUNDLES).map(|n| format!("u{n}")).collect();
    urls.iter().for_each(|url| servers.answer(url, Some("roots")));
    let all: Vec<&str> = urls.iter().map(String::as_str).collect();
    let mut bundles = Bundles::new(servers, mesh(&all), (Arc::default(), &Known::default()));
    let mut known = 0;
    while let Ok(mesh) = tokio::time::timeout(Duration::from_secs(60), bundles.changed()).await {
        known = roots(&mesh).iter().flatten().count();
    }
    assert_eq!(known, MAX_BUNDLES);
}

#[tokio::test]
async fn roots_are_not_asked_for_in_plaintext() {
    let documents = Documents::new(crate::ForbiddenAddresses::default(), crate::documents::Roots::Only(Vec::new()));
    let error = documents.fetch("http://127.0.0.1:1/").await.unwrap_err().to_string();
    assert!(error.contains("https"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn keys_for_tokens_are_those_of_the_trust_domains_of_their_roots() {
    let servers = Servers::default();
    for (url, roots) in [("own", "one"), ("other", "two"), ("signers", "three")] {
        servers.answer(url, Some(roots));
    }
    let mut config = MeshConfig::clone(&mesh(&["own", "other", "signers"]));
    config.trust_domain_aliases = vec!["old.example".into()];
    config.ca_certificates[1].trust_domains = vec!["other.example".into(), "old.example".into()];
    config.ca_certificates[2].cert_signers = vec!["a.io/all".into()];
    let keys = Arc::new(FederatedKeys::default());
    let mut bundles = Bundles::new(servers.clone(), Shared::new(config), (keys.clone(), &Known::default()));
    let set = |ids: &[&str]| {
        BundleKeys::of_bundle(&json!({ "keys": ids.iter().map(|id| token_key(id)).collect::<Vec<_>>() }))
    };
    let known = |keys: &FederatedKeys| {
        let current = keys.current();
        current.iter().map(|(domain, keys)| (domain.to_string(), keys.clone())).collect::<Vec<_>>()
    };
    let expected = |pairs: &[(&str, &[&str])]| {
        pairs.iter().map(|(domain, ids)| ((*domain).to_owned(), set(ids))).collect::<Vec<_>>()
    };
    while roots(&bundles.changed().await).contains(&None) {}
    let all = [("cluster.local", &["one"][..]), ("old.example", &["one", "two"]), ("other.example", &["two"])];
    assert_eq!(known(&keys), expected(&all));
    servers.answer("other", Some("four"));
    bundles.changed().await;
    assert_eq!(known(&keys)[2], expected(&[("other.example", &["four"])])[0]);
    bundles.resolve(mesh(&["own"]));
    assert_eq!(known(&keys), expected(&[("cluster.local", &["one"])]));
}

#[tokio::test(start_paused = true)]
async fn what_answers_in_time_is_known_from_the_start() {
    let servers = Servers::default();
    servers.answer("a", Some("one"));
    let config = mesh(&["a", "b", "c"]);
    let wanted = |data: &CertificateData| data.spiffe_bundle_url.as_deref() != Some("c");
    let later = servers.clone();
    tokio::spawn(async move {
        tokio::time::sleep(3 * FIRST_RETRY).await;
        later.answer("b", Some("two"));
    });
    let begun = Instant::now();
    let known = Known::ask(servers.clone(), &config, wanted, DEFAULT_REFRESH).await;
    assert!(begun.elapsed() < DEFAULT_REFRESH / 2, "as soon as all have answered");
    let resolved = Shared::new(known.resolve(MeshConfig::clone(&config)));
    assert_eq!(roots(&resolved), [Some("one"), Some("two"), None]);
    let keys = Arc::new(FederatedKeys::default());
    let bundles = Bundles::new(Servers::default(), resolved, (keys.clone(), &known));
    assert_eq!(roots(&bundles.resolved()), [Some("one"), Some("two"), None], "nobody has answered anew");
    assert!(!keys.current().is_empty());

    let partly = Known::ask(servers, &config, |_| true, DEFAULT_REFRESH).await;
    assert_eq!(roots(&Shared::new(partly.resolve(MeshConfig::clone(&config)))), [Some("one"), Some("two"), None]);
}
