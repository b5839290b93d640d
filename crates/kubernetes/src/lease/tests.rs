use super::*;

fn held_by(holder: &str) -> LeaseSpec {
    LeaseSpec { holder_identity: Some(holder.to_owned()), lease_transitions: Some(3), ..LeaseSpec::default() }
}

#[test]
fn a_lease_is_free_when_nobody_holds_it_or_its_holder_has_rested_too_long() {
    for (spec, seconds, expected) in [
        (LeaseSpec::default(), 0, true),
        (held_by(""), 0, true),
        (held_by("me"), 0, true),
        (held_by("other"), 0, false),
        (held_by("other"), 14, false),
        (held_by("other"), 15, true),
    ] {
        assert_eq!(is_free(&spec, Duration::from_secs(seconds), "me"), expected, "{spec:?} after {seconds} s");
    }
}

#[test]
fn a_claim_of_a_new_holder_counts_and_a_renewal_keeps_since_when() {
    let (first, later): (Timestamp, Timestamp) =
        ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-01T00:00:02Z".parse().unwrap());
    let made = claim(None, "me", first);
    assert_eq!((made.lease_transitions, made.acquire_time.clone()), (Some(0), Some(MicroTime(first))));
    let renewed = claim(Some(&made), "me", later);
    assert_eq!((renewed.acquire_time, renewed.renew_time), (Some(MicroTime(first)), Some(MicroTime(later))));
    assert_eq!(renewed.lease_transitions, Some(0));
    let taken = claim(Some(&held_by("other")), "me", later);
    assert_eq!((taken.acquire_time, taken.lease_transitions), (Some(MicroTime(later)), Some(4)));
}

#[test]
fn a_holder_gives_up_before_others_may_take_over() {
    // A renewal may take as long as one look, and begins one pace later.
    assert!(GIVE_UP + RENEW < LEASE);
}
