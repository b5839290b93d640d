use super::*;
use proptest::prelude::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn the_longest_prefix_wins() {
    let mut map = CidrMap::default();
    for prefix in ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0", "::/0", "fd00::/8"] {
        assert_eq!(map.insert(net(prefix), prefix), None);
    }
    let check = |address: &str, expected: &str| {
        assert_eq!(map.longest(address.parse().unwrap()), Some(&expected), "{address}");
    };
    check("10.1.2.3", "10.1.2.3/32");
    check("10.1.2.4", "10.1.0.0/16");
    check("10.2.0.1", "10.0.0.0/8");
    check("192.0.2.1", "0.0.0.0/0");
    check("fd00::1", "fd00::/8");
    check("2001:db8::1", "::/0");
    check("::ffff:10.2.0.1", "10.0.0.0/8");
}

#[test]
fn host_bits_are_ignored_and_a_second_insert_replaces() {
    let mut map = CidrMap::default();
    assert_eq!(map.insert(net("10.1.2.3/8"), 1), None);
    assert_eq!(map.insert(net("10.9.9.9/8"), 2), Some(1));
    assert_eq!(map.longest("10.200.0.1".parse().unwrap()), Some(&2));
    assert_eq!(map.longest("11.0.0.1".parse().unwrap()), None);
}

proptest! {
    #[test]
    fn a_set_agrees_with_a_linear_scan(
        prefixes in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..20),
        address in any::<u32>(),
    ) {
        let prefixes: Vec<IpNet> =
            prefixes.iter().map(|(base, length)| IpNet::new(IpAddr::from(base.to_be_bytes()), *length).unwrap()).collect();
        let address = IpAddr::from(address.to_be_bytes());
        let set: CidrSet = prefixes.iter().copied().collect();
        prop_assert_eq!(set.contains(address), prefixes.iter().any(|prefix| prefix.contains(&address)));
    }
}
