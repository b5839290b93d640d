use super::*;

fn set(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

#[test]
fn a_host_leads_to_the_names_and_connections_that_watch_it() {
    let mut index = Index::default();
    let places: Vec<Place> = (0..130).map(|i| index.join(&[format!("10.0.0.{i}").into()])).collect();
    assert_eq!(places, (0..130).collect::<Vec<_>>());
    let (v1, v2) = ("outbound|80|v1|a.svc", "outbound|80|v2|a.svc");
    index.watch(3, &set(&[v1, v2, "outbound|80||b.svc"]));
    index.watch(129, &set(&[v2]));
    index.watch_all_endpoints(64, true);
    let reached = |index: &Index, hosts: &[&str], addresses: &[&str]| -> Vec<Place> {
        index.reached(&set(hosts), &set(addresses)).iter().collect()
    };
    assert_eq!(reached(&index, &["a.svc"], &[]), [3, 64, 129]);
    assert_eq!(reached(&index, &["b.svc"], &["10.0.0.5"]), [3, 5, 64]);
    assert_eq!(reached(&index, &[], &["10.0.0.5"]), [5]);
    assert_eq!(index.watched_of(3, &set(&["a.svc"])), set(&[v1, v2]));
    assert_eq!(index.watched_of(129, &set(&["*.svc"])), set(&[v2]));
    assert_eq!(index.watched_of(64, &set(&["a.svc"])), set(&[]));
    index.unwatch(3, &set(&[v2]));
    assert_eq!(reached(&index, &["a.svc"], &[]), [3, 64, 129]);
    index.unwatch(3, &set(&[v1]));
    assert_eq!(reached(&index, &["a.svc"], &[]), [64, 129]);
}

#[test]
fn a_place_that_was_left_is_given_again_and_nothing_stays() {
    let mut index = Index::default();
    let address = [Arc::from("10.0.0.1")];
    let (a, b, c) = (index.join(&address), index.join(&address), index.join(&address));
    index.watch(b, &set(&["outbound|80||a"]));
    index.unwatch(b, &set(&["outbound|80||a"]));
    index.leave(b, &address);
    assert_eq!(index.join(&address), b);
    for place in [a, b, c] {
        index.leave(place, &address);
    }
    assert!(index.is_empty());
}

#[test]
fn a_proxy_that_watches_its_own_workload_is_reached_by_any_services_endpoints() {
    let mut index = Index::default();
    let (first, second) = (index.join(&[]), index.join(&[]));
    index.watch(second, &set(&["local_cluster"]));
    assert_eq!(index.reached(&set(&["a.svc"]), &set(&[])).iter().collect::<Vec<_>>(), [second]);
    assert_eq!(index.watched_of(second, &set(&["a.svc"])), set(&["local_cluster"]));
    assert_eq!(index.watched_of(first, &set(&["a.svc"])), set(&[]));
    assert_eq!(index.reached(&set(&[]), &set(&[])).iter().count(), 0);
}
