use super::super::references::clusters_of_routes;
use super::super::tests::{assign, eds, fixture, held};
use super::*;
use crate::World;
use meltemi_proto::envoy::config::route::v3::RouteConfiguration as RoutesProto;
use meltemi_proto::json::from_value;
use serde_json::{Value, json};

/// A route configuration of hosts that lead to one cluster each.
fn lead(configurator: &mut Configurator, hosts: &[(&str, &str)]) {
    let host = |(name, cluster): &(&str, &str)| json!({ "name": name, "domains": [name], "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": cluster } }] });
    let hosts: Vec<Value> = hosts.iter().map(host).collect();
    let document = json!({ "name": "r", "virtual_hosts": hosts });
    let plan = meltemi_plan::route_configuration(&from_value::<RoutesProto>(&document).unwrap()).unwrap();
    configurator.set_routes(held(plan));
    configurator.publish();
}

fn come(configurator: &mut Configurator, cluster: &str) {
    configurator.set_cluster(eds(cluster, 1)).unwrap();
    assign(configurator, cluster, 1);
    configurator.publish();
}

/// What the world's hosts lead to, by domain and by list.
fn led(configurator: &Configurator) -> Vec<String> {
    let routes = &configurator.world().routes["r"];
    let listed: Vec<String> = clusters_of_routes(routes).map(ToString::to_string).collect();
    let by_domain = routes.virtual_hosts.iter().map(|host| routes.hosts.find(&host.name).unwrap());
    let by_domain: Vec<String> = by_domain.flat_map(|host| clusters_of_host(host)).map(ToString::to_string).collect();
    assert_eq!(listed, by_domain);
    listed
}

fn has(world: &World, cluster: &str) -> bool {
    world.clusters.get(cluster).is_some()
}

#[tokio::test(start_paused = true)]
async fn a_rule_before_its_subset_leaves_its_host_alone_and_no_other() {
    let mut configurator = fixture();
    come(&mut configurator, "one");
    lead(&mut configurator, &[("a", "one"), ("b", "one")]);
    lead(&mut configurator, &[("a", "two"), ("c", "one")]);
    assert_eq!(led(&configurator), ["one", "one"]);
    assert!(configurator.needs_time());
    come(&mut configurator, "two");
    assert_eq!(led(&configurator), ["two", "one"]);
    assert!(!configurator.needs_time());
}

#[tokio::test(start_paused = true)]
async fn a_subset_that_never_comes_is_not_waited_for_for_ever_nor_twice() {
    let mut configurator = fixture();
    come(&mut configurator, "one");
    lead(&mut configurator, &[("a", "one"), ("b", "one")]);
    lead(&mut configurator, &[("a", "never"), ("b", "one")]);
    tokio::time::advance(HOLD - Duration::from_secs(1)).await;
    configurator.publish();
    assert_eq!(led(&configurator), ["one", "one"]);
    tokio::time::advance(Duration::from_secs(1)).await;
    configurator.publish();
    assert_eq!(led(&configurator), ["never", "one"]);
    assert!(!configurator.needs_time());
    // What it was before does not serve either.
    lead(&mut configurator, &[("a", "other"), ("b", "one")]);
    assert_eq!(led(&configurator), ["other", "one"]);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_taken_away_stays_while_a_route_leads_there_and_no_longer_than_it_may() {
    let mut configurator = fixture();
    come(&mut configurator, "one");
    come(&mut configurator, "two");
    lead(&mut configurator, &[("a", "one")]);
    configurator.remove_cluster("one");
    configurator.remove_cluster("two");
    configurator.publish();
    let world = configurator.world();
    assert!(has(&world, "one") && !has(&world, "two"), "nothing leads to the other");
    assert!(configurator.wanted().endpoints.is_empty());
    tokio::time::advance(GRACE).await;
    configurator.publish();
    assert!(!has(&configurator.world(), "one"));
    assert!(!configurator.needs_time());

    come(&mut configurator, "one");
    configurator.remove_cluster("one");
    configurator.publish();
    assert!(has(&configurator.world(), "one"));
    lead(&mut configurator, &[]);
    assert!(!has(&configurator.world(), "one"), "nothing leads there any more");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_comes_again_serves_all_the_time_and_stays() {
    let mut configurator = fixture();
    come(&mut configurator, "one");
    lead(&mut configurator, &[("a", "one")]);
    configurator.remove_cluster("one");
    configurator.publish();
    // Equal to what it was, but its hosts may be others.
    configurator.set_cluster(eds("one", 1)).unwrap();
    configurator.publish();
    assert!(has(&configurator.world(), "one"));
    assert_eq!(configurator.wanted().endpoints.len(), 1);
    assign(&mut configurator, "one", 2);
    tokio::time::advance(GRACE).await;
    configurator.publish();
    assert!(has(&configurator.world(), "one") && !configurator.needs_time());
}
