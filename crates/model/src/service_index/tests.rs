use super::*;
use crate::testing::{add_services, service};
use crate::{Options, Snapshot, Update};

fn build(services: Vec<Service>) -> Snapshot {
    let mut update = Update::default();
    add_services(&mut update, services);
    Snapshot::build(Options::default(), &update)
}

#[test]
fn a_host_means_the_nearest_service() {
    let mut aged = service("ext:b/x.com");
    aged.creation = Some((1, 0));
    let mut private = service("ext:d/y.com");
    private.export_to = crate::Visibility::parse(["."], "d", &crate::Visibility::Public);
    let snapshot = build(vec![service("ext:a/x.com"), aged, service("c/k.com"), service("ext:a/k.com"), private]);
    let resolve =
        |host: &str, namespace: &str| snapshot.services.resolve(host, namespace).map(|s| s.namespace.to_string());
    assert_eq!(resolve("x.com", "b").unwrap(), "b");
    assert_eq!(resolve("x.com", "z").unwrap(), "a");
    assert_eq!(resolve("k.com", "z").unwrap(), "c", "Kubernetes' own before entries");
    assert_eq!(resolve("y.com", "z"), None);
}

#[test]
fn an_alias_belongs_to_the_end_of_its_chain() {
    let alias = |text: &str, target: &str| Service {
        resolution: Resolution::Alias,
        external_name: Some(target.into()),
        ..service(text)
    };
    let mut snapshot =
        build(vec![service("a/real"), alias("b/one", "real"), alias("b/two", "one"), alias("b/loop", "loop")]);
    let key = ServiceKey::new("a", "real");
    let names = |snapshot: &Snapshot| {
        snapshot.services.get(&key).unwrap().aliases.iter().map(|key| key.hostname.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&snapshot), ["one", "two"]);
    let mut update = Update::default();
    update.services.insert(ServiceKey::new("b", "one"), None);
    let change;
    (snapshot, change) = snapshot.next(&update);
    assert_eq!(names(&snapshot), [""; 0]);
    assert!(change.services.contains(&key), "the target differs too");
}

#[test]
fn allocated_addresses_stay_and_never_collide() {
    let services: Vec<_> = (0..3000).map(|i| service(&format!("ext:a/h{i}.com"))).collect();
    let snapshot = build(services);
    let addresses: BTreeSet<_> = snapshot.services.ordered().iter().map(|s| s.auto_address.unwrap()).collect();
    assert_eq!(addresses.len(), 3000);
    assert!(addresses.iter().all(|address| address.octets()[3] != 0 && address.octets()[..2] == [240, 240]));
    let mut update = Update::default();
    add_services(&mut update, [service("ext:a/h7.com:81")]);
    let key = ServiceKey::new("a", "h7.com");
    let before = snapshot.services.get(&key).unwrap().auto_address;
    assert_eq!(snapshot.next(&update).0.services.get(&key).unwrap().auto_address, before);
}
