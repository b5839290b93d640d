use super::*;
use crate::testing::{add_services, node, service, shard, snapshot, text, update};
use crate::{EndpointShard, Port, Protocol};
use std::sync::Arc;

#[test]
fn an_endpoint_change_costs_its_own_shard() {
    let services: Vec<_> = (0..2000).map(|i| service(&format!("a/s{i}"))).collect();
    let mut first = Update::default();
    for service in &services {
        let key = service.key();
        first.endpoints.insert(key.clone(), Some(shard(&key, &["10.0.0.1"], "x")));
    }
    add_services(&mut first, services);
    let before = Snapshot::build(Options::default(), &first);
    let scope = before.scope(&node("sidecar", "a", &[]));
    let key = ServiceKey::new("a", "s7");
    let mut update = Update::default();
    update.endpoints.insert(key.clone(), Some(shard(&key, &["10.0.0.1", "10.0.0.2"], "x")));
    let (after, change) = before.next(&update);
    assert!(change.is_endpoints_only());
    assert_eq!(change.endpoints.iter().collect::<Vec<_>>(), [&key]);
    assert!(change.summaries.is_empty());
    assert_eq!(change.addresses.iter().map(|a| &**a).collect::<Vec<_>>(), ["10.0.0.2"]);
    assert_eq!(after.endpoints.shared_buckets(&before.endpoints), 255);
    assert!(Arc::ptr_eq(&before.services, &after.services));
    assert!(Arc::ptr_eq(&scope, &after.scope(&node("sidecar", "a", &[]))), "the scope is still the same one");
    assert_eq!(before.endpoints.of(&key).len(), 1, "the old snapshot is untouched");
    let (same, change) = after.next(&update);
    assert!(change.is_empty());
    assert_eq!(same.version, after.version);
}

#[test]
fn a_change_names_what_differs() {
    let rule = |host: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: r, namespace: a}}
spec: {{host: {host}, trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}}}
"
        )
    };
    let before = snapshot(&rule("web"), &["a/web.a.svc.cluster.local"]);
    let (after, change) = before.next(&update(&rule("db")));
    let hosts: Vec<_> = change.destination_hosts.iter().map(|host| host.to_string()).collect();
    assert_eq!(hosts, ["db.a.svc.cluster.local", "web.a.svc.cluster.local"]);
    assert_eq!(change.configs.iter().map(|key| key.to_string()).collect::<Vec<_>>(), ["DestinationRule a/r"]);
    assert!(after.next(&update(&rule("db"))).1.is_empty(), "the same again changes nothing");
    let mut merged = change.clone();
    merged.merge(&Change { full: true, ..Change::default() });
    assert!(merged.full && merged.destination_hosts.len() == 2);
}

#[test]
fn a_node_serves_the_services_at_its_address_or_that_select_it() {
    let mut update = Update::default();
    let (here, elsewhere, selecting) = (service("a/here"), service("a/elsewhere"), service("a/selecting"));
    let selecting = Service { selector: crate::labels::labels_of([("app", "x")]), ..selecting };
    update.endpoints.insert(here.key(), Some(shard(&here.key(), &["10.9.9.9"], "x")));
    update.endpoints.insert(elsewhere.key(), Some(shard(&elsewhere.key(), &["10.9.9.8"], "x")));
    add_services(&mut update, [here, elsewhere, selecting]);
    let snapshot = Snapshot::build(Options::default(), &update);
    let targets: Vec<_> = snapshot
        .service_targets(&node("sidecar", "a", &[("app", "x")]))
        .iter()
        .map(|target| format!("{} {}", target.service.hostname, target.target_port))
        .collect();
    assert_eq!(targets, ["here 8080", "selecting 80"]);
}

#[test]
fn a_number_of_tcp_and_of_udp_is_two_targets() {
    let mut both = service("a/both");
    let udp = Port { name: "h3".into(), protocol: Protocol::Udp, ..both.ports[0].clone() };
    both.ports.push(udp);
    let mut endpoint = (*shard(&both.key(), &["10.9.9.9"], "x").endpoints[0]).clone();
    endpoint.ports.push(("h3".into(), 8080));
    let shard = EndpointShard::new(both.key(), vec![Shared::new(endpoint)]);
    let mut update = Update::default();
    update.endpoints.insert(both.key(), Some(Shared::new(shard)));
    add_services(&mut update, [both]);
    let snapshot = Snapshot::build(Options::default(), &update);
    let targets = snapshot.service_targets(&node("sidecar", "a", &[]));
    let protocols: Vec<_> = targets.iter().map(|target| (target.port.protocol, target.target_port)).collect();
    assert_eq!(protocols, [(Protocol::Http, 8080), (Protocol::Udp, 8080)]);
}

#[test]
fn gateways_are_chosen_by_label_or_by_the_services_they_name() {
    let gateway = |name: &str, selector: &str, annotation: &str| {
        format!(
            "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: a, annotations: {{{annotation}}}}}
spec: {{selector: {{{selector}}}, servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['*']}}]}}
"
        )
    };
    let mut update = update(
        &(gateway("mine", "istio: ingress", "")
            + &gateway("other", "istio: egress", "")
            + &gateway("by-service", "istio: egress", "internal.istio.io/gateway-service: 'x, gw.a'")),
    );
    let own = service("a/gw.a");
    update.endpoints.insert(own.key(), Some(shard(&own.key(), &["10.9.9.9"], "x")));
    add_services(&mut update, [own]);
    let snapshot = Snapshot::build(Options::default(), &update);
    let found = snapshot.gateways_for(&node("router", "a", &[("istio", "ingress")]));
    assert_eq!(
        found.iter().map(|gateway| gateway.name.clone()).collect::<Vec<_>>(),
        [text("by-service"), text("mine")]
    );
}

#[test]
fn the_mesh_s_default_export_applies_anew() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vs, namespace: a}
spec: {hosts: [x.com], http: [{route: [{destination: {host: web}}]}]}
";
    let before = snapshot(yaml, &[]);
    assert_eq!(before.virtual_services_for_gateway("mesh", "b").len(), 1);
    let mesh = MeshConfig { default_virtual_service_export_to: vec![text(".")], ..MeshConfig::default() };
    let (after, change) = before.next(&Update { mesh: Some(Shared::new(mesh)), ..Update::default() });
    assert!(change.full);
    assert_eq!(after.virtual_services_for_gateway("mesh", "b").len(), 0);
    assert_eq!(after.virtual_services_for_gateway("mesh", "a").len(), 1);
}

#[test]
fn a_route_change_keeps_the_selected_services() {
    let rule = |host: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: vs, namespace: a}}
spec: {{hosts: [{host}], http: [{{route: [{{destination: {{host: web}}}}]}}]}}
"
        )
    };
    let node = node("sidecar", "b", &[]);
    let before = snapshot(&rule("x.com"), &["a/web.a.svc.cluster.local", "b/db.b.svc.cluster.local"]);
    let old = before.scope(&node);
    let (after, _) = before.next(&update(&rule("y.com")));
    let new = after.scope(&node);
    assert!(std::ptr::eq(&*old.services, &*new.services), "the same list");
    assert_eq!(&*new.egress[0].virtual_services[0].spec.hosts[0], "y.com");
    assert_eq!(new.service("db.b.svc.cluster.local"), old.service("db.b.svc.cluster.local"));
    let mut removal = Update::default();
    removal.services.insert(ServiceKey::new("b", "db.b.svc.cluster.local"), None);
    assert_eq!(after.next(&removal).0.scope(&node).services.len(), 1);
}

#[test]
fn a_new_service_leaves_the_scopes_that_do_not_import_it() {
    let sidecar = |namespace: &str| {
        format!(
            "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: s, namespace: {namespace}}}
spec: {{egress: [{{hosts: ['./*']}}]}}
"
        )
    };
    let yaml = [sidecar("a"), sidecar("b")].concat();
    let before = snapshot(&yaml, &["a/web.a.svc.cluster.local", "b/db.b.svc.cluster.local"]);
    let scopes = |snapshot: &Snapshot| ["a", "b", "c"].map(|own| snapshot.scope(&node("sidecar", own, &[])));
    let [a, b, c] = scopes(&before);
    let mut addition = Update::default();
    add_services(&mut addition, [service("b/new.b.svc.cluster.local")]);
    let (after, _) = before.next(&addition);
    let [same, grown, whole] = scopes(&after);
    assert!(Arc::ptr_eq(&a, &same));
    assert_eq!((b.services.len(), grown.services.len()), (1, 2));
    assert_eq!((c.services.len(), whole.services.len()), (2, 3));
    assert!(Arc::ptr_eq(&a, &scopes(&after.next(&Update::default()).0)[0]));
}

#[test]
fn services_keep_their_order_whatever_comes_and_goes() {
    let aged = |name: &str, age: i64| Service { creation: Some((age, 0)), ..service(name) };
    let mut snapshot = snapshot("", &[]);
    type Step<'a> = (&'a [(&'a str, i64)], &'a [&'a str]);
    let steps: [Step<'_>; 4] = [
        (&[("a/x", 3), ("b/y", 1), ("a/z", 2)], &[]),
        (&[("a/x", 0), ("b/new", 5)], &["z"]),
        (&[("a/z", 1)], &["y"]),
        (&[("a/q", 1), ("a/x", 0)], &[]),
    ];
    for (added, removed) in steps {
        let mut update = Update::default();
        add_services(&mut update, added.iter().map(|(name, age)| aged(name, *age)));
        let gone = snapshot.services.ordered().iter().filter(|service| removed.contains(&&*service.hostname));
        update.services.extend(gone.map(|service| (service.key(), None)).collect::<Vec<_>>());
        snapshot = snapshot.next(&update).0;
        let names = |services: &[Shared<Service>]| -> Vec<String> {
            services.iter().map(|service| service.key().to_string()).collect()
        };
        let mut expected = snapshot.services.ordered().to_vec();
        expected.sort_by_key(|service| (service.creation, service.hostname.clone(), service.namespace.clone()));
        assert_eq!(names(snapshot.services.ordered()), names(&expected));
        assert_eq!(expected.len(), snapshot.services.len());
        expected.retain(|service| &*service.namespace == "a");
        assert_eq!(names(snapshot.services.in_namespace("a")), names(&expected));
    }
}

#[test]
fn a_service_that_is_said_again_is_no_change_though_it_was_given_aliases_and_an_address() {
    let alias = Service { resolution: Resolution::Alias, external_name: Some("real".into()), ..service("b/one") };
    let mut update = Update::default();
    add_services(&mut update, [service("a/real"), alias, service("ext:a/h.com")]);
    let before = Snapshot::build(Options::default(), &update);
    let (after, change) = before.next(&update);
    assert!(change.is_empty(), "{change:?}");
    assert!(Arc::ptr_eq(&before.services, &after.services));
}

#[test]
fn only_changes_beyond_balanced_endpoints_change_the_shape() {
    let (balanced, headless) = (service("a/web"), service("a/db"));
    let headless = Service { resolution: Resolution::Passthrough, ..headless };
    let mut first = Update::default();
    add_services(&mut first, [balanced.clone(), headless.clone()]);
    let mut snapshot = Snapshot::build(Options::default(), &first);
    let mut step = |key: &ServiceKey, addresses: &[&str], account: &str| {
        let endpoints = [(key.clone(), Some(shard(key, addresses, account)))].into();
        let before = snapshot.shape;
        snapshot = snapshot.next(&Update { endpoints, ..Update::default() }).0;
        snapshot.shape != before
    };
    let (balanced, headless) = (balanced.key(), headless.key());
    assert!(step(&balanced, &["10.0.0.1"], "x"), "its identities differ");
    assert!(!step(&balanced, &["10.0.0.2"], "x"));
    assert!(step(&balanced, &["10.0.0.2"], "y"));
    step(&headless, &["10.0.1.1"], "x");
    assert!(step(&headless, &["10.0.1.2"], "x"), "listeners name its addresses");
}
