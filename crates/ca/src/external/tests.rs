use super::*;
use rcgen::{CertificateParams, KeyPair, SanType};

fn request(names: &[SanType]) -> String {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.to_vec();
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

#[test]
fn a_request_that_others_sign_names_its_caller_and_nobody_else() {
    let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/catalog".parse().unwrap();
    let uri = |text: &str| SanType::URI(text.to_owned().try_into().unwrap());
    let (own, other) = (uri(&id.to_string()), uri("spiffe://cluster.local/ns/shop/sa/admin"));
    let dns = SanType::DnsName("catalog.shop".to_owned().try_into().unwrap());
    check_names(&request(std::slice::from_ref(&own)), &id).unwrap();
    for names in [vec![], vec![other.clone()], vec![own.clone(), other], vec![own, dns]] {
        assert!(matches!(check_names(&request(&names), &id), Err(AuthorityError::Request(_))), "{names:?}");
    }
    assert!(matches!(check_names("nothing", &id), Err(AuthorityError::Request(_))));
}
