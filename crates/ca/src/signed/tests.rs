use super::*;
use crate::external::{AskedSigner, ExternalAuthority, ExternalRequest, Lifetimes, sign_for_workload};
use crate::testing::Ca;
use rcgen::{CertificateParams, IsCa, KeyPair, PublicKeyData as _, SanType};

const HOUR: Duration = Duration::from_secs(3600);

fn id() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/catalog".parse().unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.to_owned().try_into().unwrap())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.to_owned().try_into().unwrap())
}

/// What a signer that does as it is asked would make it.
fn params(names: &[SanType], now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.to_vec();
    (params.not_before, params.not_after) = ((now - CLOCK_SKEW).into(), (now + HOUR).into());
    params
}

fn sign(ca: &Ca, params: &CertificateParams, key: &KeyPair) -> Issued {
    Issued { chain: vec![params.signed_by(key, ca.issuer()).unwrap().pem()], root: ca.pem() }
}

/// The reason for which a certificate that `change` made different is not used.
fn refusal(change: impl FnOnce(&mut CertificateParams)) -> String {
    let (ca, key, now) = (Ca::root("signer"), KeyPair::generate().unwrap(), SystemTime::now());
    let mut params = params(&[uri(&id().to_string())], now);
    change(&mut params);
    let issued = sign(&ca, &params, &key);
    let public = key.subject_public_key_info();
    let asked = Asked { key: &public, id: &id(), dns_names: &[], longest: HOUR };
    check(&issued, &asked, now).expect_err("a refusal").to_string()
}

#[test]
fn what_was_asked_for_is_used() {
    let (ca, key, now) = (Ca::root("signer"), KeyPair::generate().unwrap(), SystemTime::now());
    let public = key.subject_public_key_info();
    let own = uri(&id().to_string());
    let asked = Asked { key: &public, id: &id(), dns_names: &[], longest: HOUR };
    check(&sign(&ca, &params(std::slice::from_ref(&own), now), &key), &asked, now).unwrap();
    let names = ["istiod.istio-system.svc".to_owned(), "istiod".to_owned()];
    let server = Asked { dns_names: &names, ..asked };
    let full = [own, dns("istiod"), dns("istiod.istio-system.svc")];
    check(&sign(&ca, &params(&full, now), &key), &server, now).unwrap();
    let error = check(&sign(&ca, &params(&full[..2], now), &key), &server, now).unwrap_err().to_string();
    assert!(error.contains("it lacks the name istiod.istio-system.svc"), "{error}");
}

#[test]
fn what_differs_from_what_was_asked_for_is_not_used() {
    let now = SystemTime::now();
    let other = "spiffe://cluster.local/ns/shop/sa/admin";
    let own = id().to_string();
    for (expected, names) in [
        (other, vec![uri(other)]),
        (other, vec![uri(&own), uri(other)]),
        ("admin.shop", vec![uri(&own), dns("admin.shop")]),
        ("IPAddress", vec![uri(&own), SanType::IpAddress("10.0.0.1".parse().unwrap())]),
        ("0 times", vec![]),
    ] {
        let error = refusal(|params| params.subject_alt_names = names.clone());
        assert!(error.contains(expected), "{names:?}: {error}");
    }
    for (expected, change) in [
        ("it is an authority's", (|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)) as Change),
        ("and 3600 s is the longest", |params| params.not_after = (SystemTime::now() + 2 * HOUR).into()),
        ("it is not valid yet", |params| params.not_before = (SystemTime::now() + HOUR / 2).into()),
        ("does not verify", |params| params.not_after = (SystemTime::now() - HOUR).into()),
    ] {
        let error = refusal(change);
        assert!(error.contains(expected), "{error}");
    }
    let (ca, key, id) = (Ca::root("signer"), KeyPair::generate().unwrap(), id());
    let asked = |public| Asked { key: public, id: &id, dns_names: &[], longest: HOUR };
    let issued = sign(&ca, &params(&[uri(&own)], now), &key);
    let stranger = KeyPair::generate().unwrap().subject_public_key_info();
    assert!(check(&issued, &asked(&stranger), now).unwrap_err().to_string().contains("another key"));
    let public = key.subject_public_key_info();
    let elsewhere = Issued { root: Ca::root("another").pem(), ..issued };
    assert!(check(&elsewhere, &asked(&public), now).unwrap_err().to_string().contains("does not verify"));
    for chain in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let broken = Issued { chain: vec![chain.to_owned()], root: ca.pem() };
        assert!(check(&broken, &asked(&public), now).unwrap_err().to_string().contains("malformed"), "{chain:?}");
    }
}

type Change = fn(&mut CertificateParams);

/// Signs what a request says for as long as it is told, or for longer.
struct Signer {
    ca: Ca,
    longest: Option<Duration>,
    beyond: Duration,
}

#[tonic::async_trait]
impl ExternalAuthority for Signer {
    async fn sign(&self, request: ExternalRequest<'_>) -> Result<Issued, AuthorityError> {
        assert_eq!(request.signer, AskedSigner::Named("own"));
        let mut asked = rcgen::CertificateSigningRequestParams::from_pem(request.csr).unwrap();
        asked.params.not_after = (SystemTime::now() + request.ttl + self.beyond).into();
        Ok(Issued { chain: vec![asked.signed_by(self.ca.issuer()).unwrap().pem()], root: self.ca.pem() })
    }

    fn longest(&self, signer: AskedSigner<'_>) -> Option<Duration> {
        self.longest.filter(|_| signer == AskedSigner::Named("own"))
    }
}

#[tokio::test]
async fn a_signers_own_limit_counts_beside_that_of_all() {
    let key = KeyPair::generate().unwrap();
    let csr = params(&[uri(&id().to_string())], SystemTime::now()).serialize_request(&key).unwrap().pem().unwrap();
    let life = async |longest, beyond| {
        let signer = Signer { ca: Ca::root("signer"), longest, beyond };
        let lifetimes = Lifetimes { asked: Some(5 * HOUR), default: HOUR, longest: 4 * HOUR };
        let issued = sign_for_workload(&signer, &csr, &id(), (lifetimes, AskedSigner::Named("own"))).await?;
        let leaf = crate::testing::der(&issued.chain[0]);
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        let left = time(leaf.validity().not_after.timestamp()).duration_since(SystemTime::now()).unwrap();
        Ok::<_, AuthorityError>((left.as_secs() + 1800) / 3600)
    };
    assert_eq!(life(None, Duration::ZERO).await.unwrap(), 4);
    assert_eq!(life(Some(2 * HOUR), Duration::ZERO).await.unwrap(), 2);
    assert_eq!(life(Some(9 * HOUR), Duration::ZERO).await.unwrap(), 4);
    let error = life(Some(2 * HOUR), HOUR).await.unwrap_err().to_string();
    assert!(error.contains("7200 s is the longest"), "{error}");
}
