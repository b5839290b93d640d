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

#[test]
fn the_roots_of_a_bundle_are_its_keys_for_x509_svids() {
    let ((one, one_pem), (two, _)) = (root(), root());
    let token = json!({ "use": "jwt-svid", "kty": "EC", "kid": "a" });
    let found = bundle(&json!({ "keys": [key(&one), token, key(&two)], "spiffe_refresh_hint": 300 })).unwrap();
    assert_eq!(found.roots.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(found.roots.replace(['\r', '\n'], "").contains(one_pem.lines().nth(1).unwrap()));
    assert_eq!(found.refresh, Duration::from_secs(300));
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
        Ok(Bundle { roots: roots.into(), refresh: DEFAULT_REFRESH })
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
    let mut bundles = Bundles::new(servers.clone(), mesh(&["a", "b"]));
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
    let mut bundles = Bundles::new(servers, mesh(&all));
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
