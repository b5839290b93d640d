use super::*;
use crate::testing::{Ca, revocations};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn read(pem: &str) -> Result<Revocations, AuthorityError> {
    Revocations::from_pem(pem, SystemTime::now())
}

#[test]
fn lists_are_read_and_what_is_none_is_refused() {
    let now = SystemTime::now();
    let (one, two) = (Ca::root("one"), Ca::root("two"));
    let both = revocations(&one, now + HOUR) + &revocations(&two, now + HOUR);
    assert_eq!(read(&both).unwrap().0.len(), 2);
    assert!(read("").unwrap().is_empty());
    for (name, pem) in [
        ("a certificate", one.pem()),
        ("garbage", "garbage".to_owned()),
        ("two of one", revocations(&one, now + HOUR) + &revocations(&one, now + HOUR)),
        ("ended", revocations(&one, now - HOUR)),
    ] {
        assert!(read(&pem).is_err(), "{name}");
    }
}

#[test]
fn every_authority_of_a_chain_must_have_a_list() {
    let now = SystemTime::now();
    let root = Ca::root("root");
    let intermediate = root.intermediate("intermediate");
    let signer = intermediate.signer(&root.pem(), now);
    let (own, above) = (revocations(&intermediate, now + HOUR), revocations(&root, now + HOUR));
    for (lists, expected) in
        [(String::new(), None), (own.clone() + &above, None), (own, Some("CN=root")), (above, Some("CN=intermediate"))]
    {
        let refusal = read(&lists).unwrap().cover(&signer).err().map(|error| error.to_string());
        assert_eq!(refusal.is_some(), expected.is_some(), "{refusal:?}");
        assert!(refusal.is_none_or(|text| text.contains(expected.unwrap_or_default())));
    }
}

#[test]
fn older_lists_of_other_authorities_stay_but_not_alone() {
    let now = SystemTime::now();
    let (one, two) = (Ca::root("one"), Ca::root("two"));
    let older = read(&revocations(&one, now + HOUR)).unwrap();
    let newer = read(&revocations(&two, now + HOUR)).unwrap();
    assert_eq!(newer.with(&older).0.len(), 2);
    let again = read(&revocations(&one, now + 2 * HOUR)).unwrap();
    assert_eq!(again.with(&older), again);
    assert!(Revocations::default().with(&older).is_empty());
}
