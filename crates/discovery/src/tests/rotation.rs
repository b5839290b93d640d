//! Another root, put into the authority's folder while proxies are connected.

use super::*;
use meltemi_ca::Pace;
use meltemi_proto::envoy::config::core::v3::data_source::Specifier;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::{Secret, secret::Type};
use meltemi_xds::types::SECRET;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::path::Path;

const ROOTS: &str = "ROOTCA";

fn root(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn plug(dir: &Path, root: &CertifiedIssuer<'static, KeyPair>) {
    for (name, text) in [
        ("ca-cert.pem", root.pem()),
        ("ca-key.pem", root.key().serialize_pem()),
        ("root-cert.pem", root.pem()),
        ("cert-chain.pem", String::new()),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

/// The roots that this agent holds, in PEM.
fn roots(agent: &Proxy) -> Option<String> {
    let resource = agent.held.get(&(SECRET.to_owned(), ROOTS.to_owned()))?;
    let secret: Secret = resource.body.unpack().unwrap();
    let Some(Type::ValidationContext(context)) = secret.r#type else { panic!("no validation context") };
    match context.trusted_ca.unwrap().specifier.unwrap() {
        Specifier::InlineBytes(bytes) => Some(String::from_utf8(bytes.into()).unwrap()),
        other => panic!("{other:?}"),
    }
}

async fn until_stage(mesh: &Mesh, stage: &str) -> Value {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let status = mesh.json("/debug/authorityz").await;
        if status["stage"] == stage {
            return status;
        }
        assert!(tokio::time::Instant::now() < end, "{stage} is not reached: {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A certificate by token.
async fn identity(mesh: &Mesh) -> Identity {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let mut request = tonic::Request::new(IstioCertificateRequest { csr, ..Default::default() });
    let token = mesh.tokens.issue("default", "client", Duration::from_secs(60)).unwrap();
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut client = IstioCertificateServiceClient::new(mesh.channel(None).await);
    let mut chain = client.create_certificate(request).await.unwrap().into_inner().cert_chain;
    chain.pop();
    Identity::from_pem(chain.concat().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

async fn renews(mesh: &Mesh, identity: Identity) -> bool {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    // With TLS 1.3 a client learns only after its handshake that it is refused.
    let Ok(channel) = mesh.try_channel(Some(identity)).await else { return false };
    let mut client = IstioCertificateServiceClient::new(channel);
    client.create_certificate(IstioCertificateRequest { csr, ..Default::default() }).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_root_signs_once_every_agent_has_it_and_the_old_one_stays() {
    let (old, new, folder) = (root("old"), root("new"), tempfile::tempdir().unwrap());
    plug(folder.path(), &old);
    let mesh = Mesh::start_with(|options| {
        let pace = Pace { least: Duration::from_secs(1), ..Pace::default() };
        let ca = AuthorityOptions { pace, ..AuthorityOptions::new("cluster.local".parse().unwrap()) };
        options.authority = Arc::new(Authority::plugged(folder.path(), ca).unwrap());
    })
    .await;
    let mut own = node("client");
    own.metadata = struct_from_value(&json!({ "NAMESPACE": "default", "AGENT_STREAM": "true" }));
    let mut agent = Proxy::connect(mesh.plain(), own, Variant::Delta);
    agent.client.subscribe(SECRET, [ROOTS]);
    agent.until(|agent| roots(agent).is_some()).await;
    let signer = |status: &Value| status["signer"]["subject"].as_str().unwrap().to_owned();
    assert_eq!(signer(&until_stage(&mesh, "single").await), "CN=old");
    let early = identity(&mesh).await;

    // A proxy without an agent holds the change up.
    let mut deaf = Proxy::connect(mesh.plain(), node("deaf"), Variant::Delta);
    deaf.client.subscribe(CLUSTER, [WILDCARD]);
    deaf.until(|deaf| deaf.has(CLUSTER, ECHO)).await;
    let metrics = mesh.get(mesh.addresses.monitoring, "/metrics").await;
    let counts = metrics.lines().filter_map(|line| line.strip_prefix("pilot_xds{")?.split(' ').next_back());
    assert_eq!(counts.collect::<Vec<_>>(), ["1"], "an agent's stream counts as no proxy");
    plug(folder.path(), &new);
    let status = until_stage(&mesh, "distributing").await;
    assert_eq!((signer(&status), &status["next"]["subject"]), ("CN=old".to_owned(), &json!("CN=new")));
    agent.until(|agent| roots(agent).unwrap().matches("BEGIN").count() == 2).await;
    assert!(renews(&mesh, early.clone()).await);
    deaf.client.close();
    drop(deaf);

    let status = until_stage(&mesh, "signing").await;
    assert_eq!((signer(&status), &status["former"][0]["subject"]), ("CN=new".to_owned(), &json!("CN=old")));
    assert_eq!(status["roots"].as_array().unwrap().len(), 2);
    let late = identity(&mesh).await;
    for identity in [early, late] {
        assert!(renews(&mesh, identity).await, "certificates of both roots are taken");
    }
    let metrics = mesh.get(mesh.addresses.monitoring, "/metrics").await;
    for line in
        ["citadel_server_root_rotation_stage 2", "citadel_server_root_certs 2", "citadel_server_ca_reload_count 1"]
    {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    assert!(mesh.json("/debug/syncz").await.as_array().unwrap().is_empty(), "an agent's stream is no proxy's");
    agent.client.close();
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_refused_are_told_of() {
    let (old, new, folder) = (root("old"), root("new"), tempfile::tempdir().unwrap());
    plug(folder.path(), &old);
    let mesh = Mesh::start_with(|options| {
        let ca = AuthorityOptions::new("cluster.local".parse().unwrap());
        options.authority = Arc::new(Authority::plugged(folder.path(), ca).unwrap());
    })
    .await;
    std::fs::write(folder.path().join("ca-cert.pem"), new.pem()).unwrap();
    let end = tokio::time::Instant::now() + PATIENCE;
    let refused = loop {
        let status = mesh.json("/debug/authorityz").await;
        if let Some(reason) = status["refused"].as_str() {
            break reason.to_owned();
        }
        assert!(tokio::time::Instant::now() < end, "{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(refused.contains("does not belong"), "{refused}");
    let metrics = mesh.get(mesh.addresses.monitoring, "/metrics").await;
    assert!(metrics.lines().any(|line| line == "citadel_server_ca_reload_err_count 1"), "{metrics}");
    assert!(renews(&mesh, identity(&mesh).await).await);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_says_of_itself_is_not_checked_where_that_is_turned_off() {
    let mesh = Mesh::start_with(|options| options.identity_check = false).await;
    let channel = mesh.channel(Some(identity(&mesh).await)).await;
    let target = Target::Custom(Arc::new(move || {
        let channel = channel.clone();
        Box::pin(async move { Ok(channel) })
    }));
    let mut other = node("client");
    other.metadata = struct_from_value(&json!({ "NAMESPACE": "other", "SERVICE_ACCOUNT": "other" }));
    let mut proxy = Proxy::connect(target, other, Variant::Delta);
    proxy.client.subscribe(CLUSTER, [WILDCARD]);
    proxy.until(|proxy| proxy.has(CLUSTER, ECHO)).await;
    proxy.client.close();
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_judged_by_the_key_set_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, "{\"keys\": []}").unwrap();
    let arguments = ["--tokenIssuer=me", &format!("--tokenKeySetFile={}", file.display())];
    let error = format!("{:#}", parsed(&arguments).err().unwrap());
    assert!(error.contains("--tokenKeySetFile") && error.contains("no key in it"), "{error}");
}

/// A certificate of another authority for this name.
fn foreign(root: &CertifiedIssuer<'static, KeyPair>, uri: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    let leaf = params.signed_by(&key, root).unwrap();
    Identity::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_of_the_trust_domain_before_comes_over_with_its_old_certificate() {
    let (before, other, folder) = (root("before"), root("other"), tempfile::tempdir().unwrap());
    let file = folder.path().join("mesh.yaml");
    let mesh = Mesh::start_with(|options| options.mesh_config = Some(file.clone())).await;
    let old = foreign(&before, "spiffe://old.example/ns/default/sa/client");
    assert!(!renews(&mesh, old.clone()).await, "nothing is known of it yet");
    let block = |pem: String| pem.trim().replace('\n', "\n    ");
    let text = format!(
        "trustDomainAliases: [old.example]\ncaCertificates:\n- trustDomains: [old.example]\n  pem: |\n    {}\n\
         - trustDomains: [other.example]\n  pem: |\n    {}\n",
        block(before.pem()),
        block(other.pem())
    );
    std::fs::write(&file, text).unwrap();
    until_mesh(&mesh, "trustDomainAliases", json!(["old.example"])).await;
    let end = tokio::time::Instant::now() + PATIENCE;
    while !renews(&mesh, old.clone()).await {
        assert!(tokio::time::Instant::now() < end, "the old certificate is not taken");
    }
    for (name, identity) in [
        ("its roots for our trust domain", foreign(&before, "spiffe://cluster.local/ns/default/sa/client")),
        ("another's roots for it", foreign(&other, "spiffe://old.example/ns/default/sa/client")),
        ("a trust domain that is no alias", foreign(&other, "spiffe://other.example/ns/default/sa/client")),
    ] {
        assert!(!renews(&mesh, identity).await, "{name}");
    }
    assert!(renews(&mesh, identity(&mesh).await).await, "our own as ever");
    mesh.stop().await;
}

/// Writes a pair of the secure port, signed by this root, and the root for clients.
fn give(folder: &Path, root: &CertifiedIssuer<'static, KeyPair>) -> crate::given::GivenFiles {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["istiod.istio-system.svc".to_owned()]).unwrap();
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let chain = params.signed_by(&key, root).unwrap().pem();
    let [chain_file, key_file, roots_file] = ["c.pem", "k.pem", "r.pem"].map(|name| folder.join(name));
    for (file, text) in [(&chain_file, chain), (&key_file, key.serialize_pem()), (&roots_file, root.pem())] {
        std::fs::write(file, text).unwrap();
    }
    let certificate = Some((chain_file, key_file));
    crate::given::GivenFiles { certificate, roots: Some(roots_file), is_mounted: false }
}

/// A channel of a client that trusts this root, and whose certificate is under it.
async fn trusting(mesh: &Mesh, root: &CertifiedIssuer<'static, KeyPair>) -> Result<Channel, tonic::transport::Error> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let id = "spiffe://cluster.local/ns/default/sa/client";
    params.subject_alt_names = vec![rcgen::SanType::URI(id.try_into().unwrap())];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let chain = params.signed_by(&key, root).unwrap().pem();
    let identity = Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    mesh.channel_by(&root.pem(), Some(identity)).await
}

async fn is_served(mesh: &Mesh, root: &CertifiedIssuer<'static, KeyPair>) -> bool {
    let Ok(channel) = trusting(mesh, root).await else { return false };
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let mut client = IstioCertificateServiceClient::new(channel);
    client.create_certificate(IstioCertificateRequest { csr, ..Default::default() }).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_certificate_and_given_roots_are_replaced_under_load_and_nobody_is_refused() {
    let (old, new, folder) = (root("old"), root("new"), tempfile::tempdir().unwrap());
    let files = give(folder.path(), &old);
    let mesh =
        Arc::new(Mesh::start_with(|options| options.given = Arc::new(crate::given::Given::read(files).unwrap())).await);
    assert!(is_served(&mesh, &old).await && !is_served(&mesh, &new).await);

    // Clients that trust both connect all the while, by token.
    let both = format!("{}{}", old.pem(), new.pem());
    let (ending, ended) = tokio::sync::watch::channel(false);
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (mesh, both, ended) = (mesh.clone(), both.clone(), ended.clone());
            tokio::spawn(async move {
                let mut served = 0;
                while !*ended.borrow() {
                    let channel = mesh.channel_by(&both, None).await.expect("a handshake");
                    let key = KeyPair::generate().unwrap();
                    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
                    let mut request = tonic::Request::new(IstioCertificateRequest { csr, ..Default::default() });
                    let token = mesh.tokens.issue("default", "client", Duration::from_secs(60)).unwrap();
                    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
                    let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await;
                    answer.expect("a certificate");
                    served += 1;
                }
                served
            })
        })
        .collect();
    // Half of a change is none.
    std::fs::write(folder.path().join("k.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    give(folder.path(), &new);
    let end = tokio::time::Instant::now() + PATIENCE;
    while !is_served(&mesh, &new).await {
        assert!(tokio::time::Instant::now() < end, "the new files are not in force");
    }
    assert!(!is_served(&mesh, &old).await, "the old root is neither presented nor taken");
    ending.send_replace(true);
    for task in load {
        assert!(task.await.unwrap() > 0);
    }
    Arc::into_inner(mesh).unwrap().stop().await;
}
