use super::*;
use crate::environment::{CertificateFiles, Role, Variables};
use crate::sds::Secrets;
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
        (params.signed_by(&key, &self.0).unwrap().pem(), Zeroizing::new(key.serialize_pem()))
    }

    fn secret(&self, uri: &str) -> Arc<WorkloadSecret> {
        let (chain_pem, key_pem) = self.issue(uri);
        let bundle = TrustBundle { roots_pem: self.pem(), ..TrustBundle::default() };
        Arc::new(WorkloadSecret { chain_pem, key_pem, bundle, not_after: SystemTime::now() })
    }
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

#[test]
fn roots_that_are_pushed_are_trusted_with_the_certificate_that_is_there() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let keeper = keeper(&[], CertificateSource::Authority);
    let pushed = |roots_pem: String| TrustBundle { roots_pem, ..TrustBundle::default() };
    let names = || keeper.trust.roots().into_iter().map(|root| root.subject).collect::<Vec<_>>();
    let (chain, key) = old.issue(ID);
    keeper.install(chain, key, old.pem()).unwrap();
    assert_eq!(names(), ["CN=old"]);
    keeper.adopt(pushed(old.pem() + &new.pem())).unwrap();
    assert_eq!(names(), ["CN=old", "CN=new"]);
    let secret = keeper.subscribe().borrow().clone().unwrap();
    assert_eq!(secret.bundle.roots_pem, old.pem() + &new.pem());

    // An answer that the authority gave before it had the new root takes nothing away.
    let (chain, key) = old.issue(ID);
    keeper.install(chain, key, old.pem()).unwrap();
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
    keeper.install(chain, key, own.pem()).unwrap();
    keeper.adopt(TrustBundle { roots_pem: pushed.pem(), ..TrustBundle::default() }).unwrap();
    assert_eq!(keeper.trust.roots().len(), 2);
}

#[test]
fn a_mounted_revocation_list_is_used_unless_discovery_pushes_one() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("root"));
    let list = |number: u64| {
        let now = SystemTime::now();
        let params = rcgen::CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + PATIENCE).into(),
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&ca.0).unwrap().pem().unwrap()
    };
    let file = folder.path().join("crl.pem");
    let (mounted, pushed) = (list(1), list(2));
    std::fs::write(&file, &mounted).unwrap();
    let keeper = keeper(&[("MELTEMI_CRL_FILE", file.to_str().unwrap())], CertificateSource::Authority);
    let (chain, key) = ca.issue(ID);
    keeper.install(chain, key, ca.pem()).unwrap();
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
