use super::*;
use crate::signer::Material;
use crate::testing::{Ca, options};
use crate::token::{TokenIssuer, TokenVerifier};
use std::time::Duration;
use tonic::Code;

const HOUR: Duration = Duration::from_secs(3600);
const CATALOG: &str = "spiffe://cluster.local/ns/shop/sa/catalog";

struct Setup {
    tokens: WorkloadTokens,
    issuer: TokenIssuer,
    _running: watch::Sender<bool>,
}

fn setup(authority: Authority) -> Setup {
    let issuer = TokenIssuer::generate("test").unwrap();
    let verifier = TokenVerifier::from_pem(issuer.public_pem(), "test").unwrap();
    let authenticator = Authenticator::new("cluster.local".parse().unwrap(), vec![Arc::new(verifier)]);
    let (running, stopped) = watch::channel(false);
    let tokens = WorkloadTokens::new(Arc::new(authority), Arc::new(authenticator), stopped);
    Setup { tokens, issuer, _running: running }
}

impl Setup {
    fn asking<T>(&self, message: T) -> Request<T> {
        let token = self.issuer.issue("shop", "catalog", HOUR).unwrap();
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    }

    fn wanted(&self, audience: &[&str], spiffe_id: &str) -> Request<JwtsvidRequest> {
        let audience = audience.iter().map(|one| (*one).to_owned()).collect();
        self.asking(JwtsvidRequest { audience, spiffe_id: spiffe_id.to_owned() })
    }

    async fn validated(&self, svid: &str, audience: &str) -> Result<ValidateJwtsvidResponse, Status> {
        let (audience, svid) = (audience.to_owned(), svid.to_owned());
        let request = self.asking(ValidateJwtsvidRequest { audience, svid });
        self.tokens.validate_jwtsvid(request).await.map(Response::into_inner)
    }
}

#[tokio::test]
async fn a_token_names_its_caller_and_is_good_for_its_audience_alone() {
    let setup = setup(Authority::self_signed(options()).unwrap());
    let answer = setup.tokens.fetch_jwtsvid(setup.wanted(&["bank"], "")).await.unwrap().into_inner();
    let svid = &answer.svids[0];
    assert_eq!(svid.spiffe_id, CATALOG);
    let valid = setup.validated(&svid.svid, "bank").await.unwrap();
    assert_eq!(valid.spiffe_id, CATALOG);
    assert!(valid.claims.unwrap().fields.contains_key("exp"));
    assert_eq!(setup.validated(&svid.svid, "other").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(setup.validated("nonsense", "bank").await.unwrap_err().code(), Code::InvalidArgument);
    setup.tokens.fetch_jwtsvid(setup.wanted(&["bank"], CATALOG)).await.unwrap();
    let another = setup.wanted(&["bank"], "spiffe://cluster.local/ns/shop/sa/admin");
    assert_eq!(setup.tokens.fetch_jwtsvid(another).await.unwrap_err().code(), Code::PermissionDenied);
    for audience in [&[][..], &[""], &["x"; MAX_AUDIENCES + 1]] {
        let refused = setup.tokens.fetch_jwtsvid(setup.wanted(audience, "")).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{audience:?}");
    }
    let nobody = Request::new(JwtsvidRequest { audience: vec!["bank".to_owned()], spiffe_id: String::new() });
    assert_eq!(setup.tokens.fetch_jwtsvid(nobody).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn bundles_have_the_keys_of_those_who_signed_and_change_with_them() {
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let mut options = options();
    options.pace.least = Duration::ZERO;
    let setup = setup(Authority::supplied(&old.material(&old.pem()), options).unwrap());
    let before = setup.tokens.fetch_jwtsvid(setup.wanted(&["bank"], "")).await.unwrap().into_inner();
    let mut bundles = setup.tokens.fetch_jwt_bundles(setup.asking(JwtBundlesRequest {})).await.unwrap().into_inner();
    let keys = async |bundles: &mut Updates<JwtBundlesResponse>| {
        let answer = tokio::time::timeout(HOUR / 100, bundles.next()).await.unwrap().unwrap().unwrap();
        let text = &answer.bundles["spiffe://cluster.local"];
        let set: serde_json::Value = serde_json::from_slice(text).unwrap();
        set["keys"].as_array().unwrap().clone()
    };
    assert_eq!(keys(&mut bundles).await.len(), 1);
    let authority = &setup.tokens.authority;
    authority.supply(new.material(&format!("{}{}", new.pem(), old.pem())));
    authority.look(std::time::SystemTime::now(), crate::Progress::default()).unwrap();
    authority.look(std::time::SystemTime::now(), crate::Progress::default()).unwrap();
    let after = keys(&mut bundles).await;
    assert!(after.len() == 2 && after.iter().all(|key| key["use"] == "jwt-svid" && key["d"].is_null()), "{after:?}");
    let second = setup.tokens.fetch_jwtsvid(setup.wanted(&["bank"], "")).await.unwrap().into_inner();
    for answer in [before, second] {
        setup.validated(&answer.svids[0].svid, "bank").await.unwrap();
    }
}

#[tokio::test]
async fn where_others_sign_there_are_no_tokens() {
    let setup = setup(Authority::supplied(&Material::of_others(&Ca::root("theirs").pem()), options()).unwrap());
    let refused = setup.tokens.fetch_jwtsvid(setup.wanted(&["bank"], "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let bundles = setup.tokens.fetch_jwt_bundles(setup.asking(JwtBundlesRequest {})).await;
    assert_eq!(bundles.err().unwrap().code(), Code::Unimplemented);
}

/// The key sets of an answer by trust domain.
async fn told(bundles: &mut Updates<JwtBundlesResponse>) -> std::collections::BTreeMap<String, Value> {
    let answer = tokio::time::timeout(HOUR / 100, bundles.next()).await.unwrap().unwrap().unwrap();
    answer.bundles.into_iter().map(|(domain, set)| (domain, serde_json::from_slice(&set).unwrap())).collect()
}

fn federated(domain: &str, authority: &Authority) -> (TrustDomain, BundleKeys) {
    let bundle = json!({ "keys": authority.token_keys().unwrap() });
    (domain.parse().unwrap(), BundleKeys::of_bundle(&bundle))
}

#[tokio::test]
async fn bundles_of_other_trust_domains_come_and_go_and_verify_their_tokens() {
    let others = crate::AuthorityOptions::new("other.example".parse().unwrap());
    let other = Authority::self_signed(others).unwrap();
    let id = "spiffe://other.example/ns/a/sa/b".parse().unwrap();
    let token = other.sign_token(&id, &["bank".to_owned()]).unwrap();
    let keys = Arc::new(FederatedKeys::default());
    let mut setup = setup(Authority::self_signed(options()).unwrap());
    setup.tokens = setup.tokens.with_federated(keys.clone());
    let mut bundles = setup.tokens.fetch_jwt_bundles(setup.asking(JwtBundlesRequest {})).await.unwrap().into_inner();
    assert_eq!(told(&mut bundles).await.keys().collect::<Vec<_>>(), ["spiffe://cluster.local"]);
    assert!(setup.validated(&token, "bank").await.is_err());

    keys.set([federated("other.example", &other)].into());
    let both = told(&mut bundles).await;
    assert_eq!(both["spiffe://other.example"], json!({ "keys": other.token_keys().unwrap() }));
    assert_eq!(both["spiffe://cluster.local"]["keys"].as_array().unwrap().len(), 1);
    assert_eq!(setup.validated(&token, "bank").await.unwrap().spiffe_id, id.to_string());
    assert!(setup.validated(&token, "shop").await.is_err());

    keys.set([federated("cluster.local", &other)].into());
    let own = told(&mut bundles).await;
    assert_eq!(own.len(), 1);
    assert_eq!(own["spiffe://cluster.local"]["keys"].as_array().unwrap().len(), 2, "another authority of our own");
    assert!(setup.validated(&token, "bank").await.is_err(), "no longer federated");
}

#[tokio::test]
async fn where_others_sign_the_keys_of_other_trust_domains_are_there_alone() {
    let theirs = Authority::supplied(&Material::of_others(&Ca::root("theirs").pem()), options()).unwrap();
    let mut setup = setup(theirs);
    let other = Authority::self_signed(options()).unwrap();
    let keys = FederatedKeys::default();
    keys.set([federated("other.example", &other)].into());
    setup.tokens = setup.tokens.with_federated(Arc::new(keys));
    let mut bundles = setup.tokens.fetch_jwt_bundles(setup.asking(JwtBundlesRequest {})).await.unwrap().into_inner();
    let sets = told(&mut bundles).await;
    assert_eq!(sets["spiffe://cluster.local"], json!({ "keys": [] }));
    assert!(sets.contains_key("spiffe://other.example"));
    let refused = setup.tokens.fetch_jwtsvid(setup.wanted(&["bank"], "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert_eq!(setup.validated("nonsense", "bank").await.unwrap_err().code(), Code::InvalidArgument);
}
