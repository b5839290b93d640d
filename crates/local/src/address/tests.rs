use super::*;

#[test]
fn a_released_slot_comes_again_last() {
    let mut slots = Slots::default();
    let first = slots.take().unwrap();
    assert_eq!((first.address(), first.link().as_str()), (Ipv4Addr::new(10, 244, 0, 2), "veth2"));
    slots.release(first);
    assert_ne!(slots.take(), Some(first));
    while slots.take().is_some_and(|slot| slot != first) {}
    assert_eq!(slots.taken.len(), usize::from(LAST_SLOT - FIRST_SLOT) + 1);
    assert_eq!(slots.take(), None);
}

#[test]
fn service_addresses_are_distinct_in_range_and_stable() {
    let names: BTreeSet<_> = (0..500).map(|i| format!("default/s{i}")).collect();
    let addresses = service_addresses(&names, &BTreeSet::new());
    let distinct: BTreeSet<_> = addresses.values().copied().collect();
    assert_eq!(distinct.len(), 500);
    assert!(distinct.iter().all(|a| a.octets()[0] == 10 && (96..112).contains(&a.octets()[1])));
    let fixed = BTreeSet::from([addresses["default/s7"]]);
    assert_ne!(service_addresses(&names, &fixed)["default/s7"], addresses["default/s7"]);
    let fewer: BTreeSet<_> = names.iter().skip(1).cloned().collect();
    assert_eq!(service_addresses(&fewer, &BTreeSet::new())["default/s9"], addresses["default/s9"]);
}
