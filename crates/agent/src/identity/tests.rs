use super::*;
use crate::environment::{CertificateFiles, Role, Variables};
use crate::sds::Secrets;
use meltemi_proto::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use meltemi_tls::PeerInfo;
use rcgen::{BasicConstraints, CertifiedIssuer, DnType, IsCa};
use std::path::Path;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

const PATIENCE: Duration = Duration::from_secs(20);
const ID: &str = "spiffe://cluster.local/ns/shop/sa/catalog";

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Chain and key.
    fn issue(&self, uri: &str) -> (String, Zeroizing<String>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        (params.signed_by(&key, &self.0).unwrap().pem(), Zeroizing::new(key.serialize_pem()))
    }

    fn secret(&self, uri: &str) -> Arc<WorkloadSecret> {
        let (chain_pem, key_pem) = self.issue(uri);
        Arc::new(WorkloadSecret { chain_pem, key_pem, bundle: bundle(self), not_after: SystemTime::now() })
    }

    /// An empty revocation list.
    fn list(&self, number: u64) -> String {
        let now = SystemTime::now();
        let params = rcgen::CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + PATIENCE).into(),
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

fn bundle(ca: &Ca) -> TrustBundle {
    TrustBundle { roots_pem: ca.pem(), ..TrustBundle::default() }
}

fn keeper(pairs: &[(&str, &str)], source: CertificateSource) -> Arc<IdentityKeeper> {
    let base = [("POD_NAME", "a"), ("INSTANCE_IP", "127.0.0.1"), ("MELTEMI_CRL_FILE", "/nowhere/crl.pem")];
    let variables = Variables::from_pairs(base.iter().chain(pairs).copied());
    let settings = Settings::from_variables(Role::Sidecar, None, &variables).unwrap();
    let settings = Settings { certificate_source: source, ..settings };
    Arc::new(IdentityKeeper::new(Arc::new(ControlPlane::new(&settings)), &settings))
}

/// Waits until the secret in force is as it should be.
async fn until(keeper: &IdentityKeeper, condition: impl Fn(&WorkloadSecret) -> bool) -> Arc<WorkloadSecret> {
    let mut secrets = keeper.subscribe();
    let found = secrets.wait_for(|secret| secret.as_ref().is_some_and(|secret| condition(secret)));
    let found = tokio::time::timeout(PATIENCE, found).await.expect("a secret in time").unwrap();
    found.clone().unwrap()
}

fn presented(keeper: &IdentityKeeper) -> String {
    let identity = keeper.certificate.current().unwrap();
    PeerInfo::from_certificate(&identity.chain()[0]).unwrap().uri_sans.remove(0)
}

fn write(folder: &Path, (chain, key): &(String, Zeroizing<String>), roots: &str) -> CertificateFiles {
    let [chain_file, key_file, roots_file] = ["c.pem", "k.pem", "r.pem"].map(|name| folder.join(name));
    std::fs::write(&chain_file, chain).unwrap();
    std::fs::write(&key_file, key.as_bytes()).unwrap();
    std::fs::write(&roots_file, roots).unwrap();
    CertificateFiles { chain: chain_file, key: key_file, roots: roots_file }
}

#[tokio::test(start_paused = true)]
async fn files_are_in_force_when_they_fit_together_and_are_followed() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("root"));
    let (first, second) = (ca.issue(ID), ca.issue("spiffe://cluster.local/ns/shop/sa/other"));
    let mixed = (first.0.clone(), second.1.clone());
    let files = write(folder.path(), &mixed, &ca.pem());
    let keeper = keeper(&[], CertificateSource::Files(files));
    let running = tokio::spawn({
        let keeper = keeper.clone();
        async move { keeper.run().await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(keeper.certificate.current().is_none(), "key and chain do not belong together");
    write(folder.path(), &first, &ca.pem());
    until(&keeper, |secret| secret.chain_pem == first.0).await;
    assert_eq!((presented(&keeper), keeper.takes_bundles()), (ID.to_owned(), false));

    write(folder.path(), &mixed, &ca.pem());
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(presented(&keeper), ID, "what cannot be used leaves in force what was");
    write(folder.path(), &second, &ca.pem());
    until(&keeper, |secret| secret.chain_pem == second.0).await;
    running.abort();
}

#[tokio::test]
async fn another_agents_socket_gives_the_certificate_and_its_successors() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("root"));
    let (sender, secrets) = watch::channel(Some(ca.secret(ID)));
    let path = folder.path().join("socket");
    let keeper = keeper(&[], CertificateSource::Socket(path.clone()));
    let running = tokio::spawn({
        let keeper = keeper.clone();
        async move { keeper.run().await }
    });
    // The other agent comes later than we do.
    let listener = UnixListener::bind(&path).unwrap();
    let server = tonic::transport::Server::builder().add_service(Secrets::new(secrets).into_server());
    let serving = tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    let first = until(&keeper, |_| true).await;
    assert_eq!((presented(&keeper), &first.bundle.roots_pem), (ID.to_owned(), &ca.pem()));
    assert!(!keeper.trust.is_empty() && !keeper.takes_bundles());

    let other = Ca::new("other");
    let next = other.secret("spiffe://cluster.local/ns/shop/sa/next");
    sender.send_replace(Some(next.clone()));
    until(&keeper, |secret| secret.chain_pem == next.chain_pem && secret.bundle.roots_pem == other.pem()).await;
    assert_eq!(presented(&keeper), "spiffe://cluster.local/ns/shop/sa/next");
    running.abort();
    serving.abort();
}

/// The Workload API on a socket, as another agent has it; ends with the value.
struct Agent {
    socket: PathBuf,
    secrets: watch::Sender<Option<Arc<WorkloadSecret>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Agent {
    fn start(folder: &Path, secret: Option<Arc<WorkloadSecret>>) -> Self {
        let nowhere = || PathBuf::from("/nowhere");
        let files = CertificateFiles { chain: nowhere(), key: nowhere(), roots: nowhere() };
        let keeper = keeper(&[], CertificateSource::Files(files));
        keeper.current.send_replace(secret);
        Self::of(folder.join("agent.sock"), keeper)
    }

    fn of(socket: PathBuf, keeper: Arc<IdentityKeeper>) -> Self {
        let secrets = keeper.current.clone();
        let serving = tokio::spawn({
            let socket = socket.clone();
            async move { serve_workload_api(&socket, keeper).await.unwrap() }
        });
        Self { socket, secrets, serving }
    }

    async fn client(&self) -> SpiffeWorkloadApiClient<tonic::transport::Channel> {
        while !self.socket.exists() {
            tokio::task::yield_now().await;
        }
        let channel = external::connect(&self.socket).await;
        SpiffeWorkloadApiClient::new(channel.ok().expect("a channel"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn demanding<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(workload::HEADER, "true".parse().unwrap());
    request
}

#[tokio::test]
async fn the_workload_api_of_another_agent_gives_the_certificate_and_its_successors() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("root"));
    let listed = |ca: &Ca, uri: &str| {
        let (chain_pem, key_pem) = ca.issue(uri);
        let bundle = TrustBundle { roots_pem: ca.pem(), crl_pem: ca.list(1), ..TrustBundle::default() };
        Arc::new(WorkloadSecret { chain_pem, key_pem, bundle, not_after: SystemTime::now() })
    };
    let agent = Agent::start(folder.path(), Some(listed(&ca, ID)));
    // Where Istio looks for SDS, too, since agents serve both on one socket, or one of them.
    for source in
        [CertificateSource::WorkloadApi(agent.socket.clone()), CertificateSource::Socket(agent.socket.clone())]
    {
        let given = listed(&ca, ID);
        agent.secrets.send_replace(Some(given.clone()));
        let keeper = keeper(&[], source);
        let running = tokio::spawn({
            let keeper = keeper.clone();
            async move { keeper.run().await }
        });
        let first = until(&keeper, |_| true).await;
        assert_eq!((presented(&keeper), keeper.takes_bundles()), (ID.to_owned(), false));
        assert_eq!(first.bundle, given.bundle);

        let other = Ca::new("other");
        let next = listed(&other, "spiffe://cluster.local/ns/shop/sa/next");
        agent.secrets.send_replace(Some(next.clone()));
        until(&keeper, |secret| secret.chain_pem == next.chain_pem && secret.bundle.roots_pem == other.pem()).await;
        assert_eq!(presented(&keeper), "spiffe://cluster.local/ns/shop/sa/next");
        running.abort();
    }
}

#[test]
fn of_several_identities_ours_is_taken_and_what_does_not_fit_is_refused() {
    let ca = Ca::new("root");
    let own = "spiffe://cluster.local/ns/default/sa/default";
    let svid = |uri: &str, says: &str| {
        let (chain, key) = ca.issue(uri);
        meltemi_proto::X509svid {
            spiffe_id: says.to_owned(),
            x509_svid: der::of_certificates(&chain).unwrap().into(),
            x509_svid_key: KeyPair::from_pem(&key).unwrap().serialize_der().into(),
            bundle: der::of_certificates(&ca.pem()).unwrap().into(),
            hint: String::new(),
        }
    };
    let keeper = keeper(&[], CertificateSource::WorkloadApi("/nowhere".into()));
    let take = |svids: Vec<meltemi_proto::X509svid>| {
        let answer = meltemi_proto::X509svidResponse { svids, ..Default::default() };
        workload::take(&answer, &keeper)
    };
    take(vec![svid(ID, ID), svid(own, own)]).unwrap();
    assert_eq!(presented(&keeper), own);
    take(vec![svid(ID, ID)]).unwrap();
    assert_eq!(presented(&keeper), ID, "the first, where none is ours");

    let broken = |change: fn(&mut meltemi_proto::X509svid)| {
        let mut whole = svid(own, own);
        change(&mut whole);
        take(vec![whole]).unwrap_err()
    };
    assert_eq!(take(Vec::new()).unwrap_err(), "svids: none");
    assert!(take(vec![svid(ID, own)]).unwrap_err().starts_with("spiffe_id \"spiffe://cluster.local/ns/default"));
    assert_eq!(broken(|svid| svid.x509_svid = Default::default()), "x509_svid: no certificate");
    assert_eq!(broken(|svid| svid.bundle = vec![0x30, 0x82, 0xff].into()), "bundle: not a list of certificates in DER");
    assert_eq!(broken(|svid| svid.bundle = [0x30, 0].repeat(65).into()), "bundle: more than 64 certificates");
    assert!(broken(|svid| svid.x509_svid_key = vec![1, 2, 3].into()).starts_with("private key"));
    assert_eq!(presented(&keeper), ID, "what was refused changed nothing");
}

#[tokio::test]
async fn tokens_are_asked_of_whoever_gives_the_certificate() {
    use meltemi_proto::{JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest};
    let folder = tempfile::tempdir().unwrap();
    let first = Agent::start(folder.path(), None);
    first.client().await;
    let between = keeper(&[], CertificateSource::WorkloadApi(first.socket.clone()));
    let second = Agent::of(folder.path().join("second.sock"), between);
    let mut client = second.client().await;
    // The first has its certificate from files, and says so through the second.
    let refused = [
        client.fetch_jwtsvid(demanding(JwtsvidRequest::default())).await.err(),
        client.validate_jwtsvid(demanding(ValidateJwtsvidRequest::default())).await.err(),
        client.fetch_jwt_bundles(demanding(JwtBundlesRequest {})).await.err(),
    ];
    for refused in refused.map(Option::unwrap) {
        assert_eq!(refused.code(), tonic::Code::Unimplemented);
        assert!(refused.message().contains("from files"), "{refused}");
    }
    let refused = client.fetch_jwtsvid(JwtsvidRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "without the header");
    drop(first);
    std::fs::remove_file(folder.path().join("agent.sock")).unwrap();
    let gone = client.fetch_jwtsvid(demanding(JwtsvidRequest::default())).await.unwrap_err();
    assert_eq!(gone.code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn bundles_of_other_trust_domains_come_and_go_by_the_workload_api() {
    let (folder, ca, foreign) = (tempfile::tempdir().unwrap(), Ca::new("root"), Ca::new("foreign"));
    let (chain_pem, key_pem) = ca.issue(ID);
    let plain = |ca: &Ca| ca.pem().replace('\r', "");
    let domains = [("cluster.local", plain(&ca)), ("other.example", plain(&foreign))];
    let domains = domains.map(|(name, roots)| (name.to_owned(), roots)).into();
    let bundle = TrustBundle { roots_pem: plain(&ca), domains, ..TrustBundle::default() };
    let secret = WorkloadSecret { chain_pem, key_pem, bundle, not_after: SystemTime::now() };
    let agent = Agent::start(folder.path(), Some(Arc::new(secret)));
    let mut client = agent.client().await;
    let mut svids = client.fetch_x509svid(demanding(meltemi_proto::X509svidRequest {})).await.unwrap().into_inner();
    let answer = svids.message().await.unwrap().unwrap();
    assert_eq!(answer.federated_bundles.keys().collect::<Vec<_>>(), ["spiffe://other.example"]);
    let mut bundles =
        client.fetch_x509_bundles(demanding(meltemi_proto::X509BundlesRequest {})).await.unwrap().into_inner();
    let bundles = bundles.message().await.unwrap().unwrap().bundles;
    assert_eq!(bundles.keys().collect::<Vec<_>>(), ["spiffe://cluster.local", "spiffe://other.example"]);
    assert_eq!(bundles["spiffe://cluster.local"], answer.svids[0].bundle);

    let keeper = keeper(&[], CertificateSource::WorkloadApi("/nowhere".into()));
    workload::take(&answer, &keeper).unwrap();
    let held = keeper.subscribe().borrow().clone().unwrap();
    assert_eq!(held.bundle.domains.keys().collect::<Vec<_>>(), ["cluster.local", "other.example"]);
    let verifies = |ca: &Ca, uri: &str| {
        held.bundle.anchors().unwrap().verify(ca.issue(uri).0.as_bytes(), SystemTime::now()).is_ok()
    };
    assert!(verifies(&ca, ID) && verifies(&foreign, "spiffe://other.example/ns/a/sa/b"));
    assert!(!verifies(&foreign, ID), "another domain's authority vouches for ours");
    let mut wrong = answer.clone();
    wrong.federated_bundles.insert("spiffe://Not A Domain".to_owned(), answer.svids[0].bundle.clone());
    assert!(workload::take(&wrong, &keeper).unwrap_err().starts_with("federated_bundles[\"spiffe://Not A Domain\"]: "));
}

#[tokio::test]
async fn the_workload_api_is_served_to_those_who_ask_as_it_demands() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("root"));
    let agent = Agent::start(folder.path(), None);
    let mut client = agent.client().await;
    let refused = client.fetch_x509svid(meltemi_proto::X509svidRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let tokens = client.fetch_jwt_bundles(demanding(meltemi_proto::JwtBundlesRequest {})).await.unwrap_err();
    assert_eq!(tokens.code(), tonic::Code::Unimplemented);

    // Asked before there is a certificate, answered when there is one.
    let mut svids = client.fetch_x509svid(demanding(meltemi_proto::X509svidRequest {})).await.unwrap().into_inner();
    let mut bundles =
        client.fetch_x509_bundles(demanding(meltemi_proto::X509BundlesRequest {})).await.unwrap().into_inner();
    for account in ["catalog", "next"] {
        let id = format!("spiffe://cluster.local/ns/shop/sa/{account}");
        let secret = ca.secret(&id);
        agent.secrets.send_replace(Some(secret.clone()));
        let svid = svids.message().await.unwrap().unwrap().svids.remove(0);
        assert_eq!(svid.spiffe_id, id);
        assert_eq!(der::certificates(&svid.x509_svid).unwrap().trim(), secret.chain_pem.replace('\r', "").trim());
        let roots = bundles.message().await.unwrap().unwrap().bundles;
        assert_eq!(roots.keys().collect::<Vec<_>>(), ["spiffe://cluster.local"]);
        assert_eq!(roots["spiffe://cluster.local"], svid.bundle);
    }

    let mut held = Vec::new();
    let refused = loop {
        match client.fetch_x509svid(demanding(meltemi_proto::X509svidRequest {})).await {
            Ok(stream) => held.push(stream),
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused.code(), held.len()), (tonic::Code::ResourceExhausted, 62));
}

#[test]
fn the_authority_is_told_who_is_to_sign() {
    let asked = |pairs: &[(&str, &str)]| {
        let metadata = keeper(pairs, CertificateSource::Authority).metadata();
        metadata.map(|metadata| meltemi_proto::json::struct_to_value(&metadata).to_string())
    };
    assert_eq!(asked(&[]), None);
    assert_eq!(
        asked(&[("ISTIO_META_CERT_SIGNER", "clusterissuers/foo")]).unwrap(),
        r#"{"CertSigner":"clusterissuers/foo"}"#
    );
}

#[test]
fn roots_that_are_pushed_are_trusted_with_the_certificate_that_is_there() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let keeper = keeper(&[], CertificateSource::Authority);
    let pushed = |roots_pem: String| TrustBundle { roots_pem, ..TrustBundle::default() };
    let names = || keeper.trust.roots().into_iter().map(|root| root.subject).collect::<Vec<_>>();
    let (chain, key) = old.issue(ID);
    keeper.install(chain, key, bundle(&old)).unwrap();
    assert_eq!(names(), ["CN=old"]);
    keeper.adopt(pushed(old.pem() + &new.pem())).unwrap();
    assert_eq!(names(), ["CN=old", "CN=new"]);
    let secret = keeper.subscribe().borrow().clone().unwrap();
    assert_eq!(secret.bundle.roots_pem, old.pem() + &new.pem());

    // An answer that the authority gave before it had the new root takes nothing away.
    let (chain, key) = old.issue(ID);
    keeper.install(chain, key, bundle(&old)).unwrap();
    assert_eq!(names(), ["CN=old", "CN=new"]);
    keeper.adopt(pushed(new.pem())).unwrap();
    assert_eq!(names(), ["CN=new"], "discovery is the authority, and has retired the old root");
    assert!(keeper.adopt(pushed("garbage".to_owned())).is_err());
    assert_eq!(names(), ["CN=new"]);
}

#[test]
fn roots_of_another_authority_than_discovery_stay() {
    let (own, pushed) = (Ca::new("own"), Ca::new("pushed"));
    let keeper = keeper(&[("CA_ADDR", "ca.example:443")], CertificateSource::Authority);
    let (chain, key) = own.issue(ID);
    keeper.install(chain, key, bundle(&own)).unwrap();
    keeper.adopt(TrustBundle { roots_pem: pushed.pem(), ..TrustBundle::default() }).unwrap();
    assert_eq!(keeper.trust.roots().len(), 2);
}

#[test]
fn a_mounted_revocation_list_is_used_unless_discovery_pushes_one() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("root"));
    let file = folder.path().join("crl.pem");
    let (mounted, pushed) = (ca.list(1), ca.list(2));
    std::fs::write(&file, &mounted).unwrap();
    let keeper = keeper(&[("MELTEMI_CRL_FILE", file.to_str().unwrap())], CertificateSource::Authority);
    let (chain, key) = ca.issue(ID);
    keeper.install(chain, key, bundle(&ca)).unwrap();
    let in_force = || keeper.subscribe().borrow().clone().unwrap().bundle.crl_pem.clone();
    assert_eq!(in_force(), mounted);
    keeper.adopt(TrustBundle { roots_pem: ca.pem(), crl_pem: pushed.clone(), ..TrustBundle::default() }).unwrap();
    assert_eq!(in_force(), pushed);
}

#[test]
fn nothing_that_holds_a_key_shows_it() {
    let secret = Ca::new("root").secret(ID);
    let identity = Identity::from_pem(secret.chain_pem.as_bytes(), secret.key_pem.as_bytes()).unwrap();
    let shown = format!("{secret:?} {identity:?} {:?}", CertSlot::new(identity.clone()));
    let key = secret.key_pem.lines().filter(|line| !line.starts_with('-'));
    assert!(key.clone().count() > 0 && key.into_iter().all(|line| !shown.contains(line)), "{shown}");
}

#[test]
fn a_clock_that_a_new_certificate_contradicts_is_wrong() {
    let (begin, minute) = (SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000), Duration::from_secs(60));
    let validity = (begin, begin + 10 * minute);
    assert_eq!(life(validity, begin), Ok(10 * minute));
    assert_eq!(life(validity, begin + 4 * minute), Ok(6 * minute));
    assert_eq!(life(validity, begin - minute), Err(WrongClock { ahead: false, by: minute }));
    assert_eq!(life(validity, begin + 15 * minute), Err(WrongClock { ahead: true, by: 5 * minute }));
}
