use super::super::tests::{assign, eds, fixture, held};
use super::*;
use crate::World;
use meltemi_proto::envoy::config::route::v3::{RouteConfiguration as RoutesProto, VirtualHost};
use meltemi_proto::json::from_value;
use serde_json::json;

const IDLE: Duration = Duration::from_secs(60);

fn base() -> Held<RouteConfiguration> {
    let document = json!({ "name": "80", "vhds": { "config_source": { "ads": {} } } });
    held(meltemi_plan::route_configuration(&from_value::<RoutesProto>(&document).unwrap()).unwrap())
}

/// A host whose one route leads to the cluster.
fn host(name: &str, cluster: &str) -> Held<OnDemandHost> {
    let domain = name.split_once('/').unwrap().1;
    let document = json!({ "name": name, "domains": [domain], "routes": [
        { "match": { "prefix": "/" }, "route": { "cluster": cluster } }] });
    let body = meltemi_proto::encode(&from_value::<VirtualHost>(&document).unwrap());
    held(meltemi_plan::encoded_virtual_host(&body).unwrap())
}

fn need(name: &str) -> Need {
    Need::Host(name.into())
}

/// Where the host leads in the world.
fn cluster_of(world: &World, domain: &str) -> Option<String> {
    let host = world.routes["80"].hosts.find(domain)?;
    clusters_of_host(host).next().map(ToString::to_string)
}

fn started() -> Configurator {
    let mut configurator = fixture();
    configurator.set_routes(base());
    configurator.publish();
    assert!(configurator.world().routes["80"].virtual_hosts.is_empty());
    configurator
}

fn wanted(configurator: &Configurator) -> (Vec<String>, Vec<String>) {
    let wanted = configurator.wanted();
    let texts = |names: BTreeSet<Arc<str>>| names.iter().map(ToString::to_string).collect();
    (texts(wanted.hosts), texts(wanted.clusters))
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn a_host_is_in_force_when_its_clusters_are() {
    let mut configurator = started();
    assert!(configurator.demand(&need("80/a"), Instant::now()));
    assert_eq!(wanted(&configurator), (texts(&["80/a"]), texts(&[])));

    configurator.set_host(host("80/a", "one"), Instant::now());
    configurator.publish();
    assert!(!configurator.is_met(&need("80/a")), "its cluster has not come");
    assert_eq!(wanted(&configurator).1, ["one"]);
    configurator.set_cluster(eds("one", 1)).unwrap();
    configurator.publish();
    assert!(!configurator.is_met(&need("80/a")), "its cluster has no hosts yet");
    assign(&mut configurator, "one", 1);
    configurator.publish();
    assert!(configurator.is_met(&need("80/a")));
    assert_eq!(cluster_of(&configurator.world(), "a"), Some("one".into()));
}

#[tokio::test(start_paused = true)]
async fn a_host_does_not_wait_for_clusters_that_do_not_exist_nor_for_ever() {
    let mut configurator = started();
    for name in ["80/a", "80/b"] {
        configurator.demand(&need(name), Instant::now());
    }
    configurator.set_host(host("80/a", "nobody"), Instant::now());
    configurator.set_host(host("80/b", "late"), Instant::now());
    configurator.remove_cluster("nobody");
    configurator.publish();
    assert!(configurator.is_met(&need("80/a")) && configurator.is_met(&Need::Cluster("nobody".into())));
    assert!(!configurator.is_met(&need("80/b")));
    tokio::time::advance(GRACE).await;
    configurator.publish();
    assert_eq!(cluster_of(&configurator.world(), "b"), Some("late".into()));
}

#[tokio::test(start_paused = true)]
async fn the_next_version_waits_and_the_former_one_keeps_its_cluster() {
    let mut configurator = started();
    configurator.demand(&need("80/a"), Instant::now());
    configurator.set_host(host("80/a", "one"), Instant::now());
    configurator.set_cluster(eds("one", 1)).unwrap();
    assign(&mut configurator, "one", 1);
    configurator.publish();

    // The rule leads elsewhere now, and the service that it led to is gone.
    configurator.set_host(host("80/a", "two"), Instant::now());
    configurator.remove_cluster("one");
    configurator.publish();
    let world = configurator.world();
    assert_eq!(cluster_of(&world, "a"), Some("one".into()));
    assert!(world.clusters.get("one").is_some());
    assert_eq!(wanted(&configurator).1, ["one", "two"]);

    configurator.set_cluster(eds("two", 1)).unwrap();
    assign(&mut configurator, "two", 2);
    configurator.publish();
    let world = configurator.world();
    assert_eq!(cluster_of(&world, "a"), Some("two".into()));
    assert!(world.clusters.get("one").is_none());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_given_up() {
    let mut configurator = started();
    for name in ["80/used", "80/unused"] {
        configurator.demand(&need(name), Instant::now());
        configurator.set_host(host(name, "one"), Instant::now());
    }
    configurator.demand(&Need::Cluster("tcp".into()), Instant::now());
    for name in ["one", "tcp"] {
        configurator.set_cluster(eds(name, 1)).unwrap();
        assign(&mut configurator, name, 1);
    }
    configurator.publish();
    assert_eq!(wanted(&configurator), (texts(&["80/unused", "80/used"]), texts(&["one", "tcp"])));
    for _ in 0..3 {
        tokio::time::advance(IDLE / 2).await;
        configurator.world().routes["80"].hosts.find("used").unwrap().usage.as_ref().unwrap().touch();
        let cluster = configurator.world().clusters.get("tcp").cloned();
        cluster.inspect(|cluster| cluster.stats.traffic.upstream_cx_total().inc());
        configurator.give_up_unused(Instant::now(), IDLE);
        configurator.publish();
    }
    assert_eq!(wanted(&configurator), (texts(&["80/used"]), texts(&["one", "tcp"])));
    assert_eq!(cluster_of(&configurator.world(), "unused"), None);
    tokio::time::advance(IDLE).await;
    configurator.give_up_unused(Instant::now(), IDLE);
    configurator.publish();
    assert_eq!(wanted(&configurator), (texts(&[]), texts(&[])));
    assert!(!configurator.has_on_demand() && configurator.is_met(&need("80/used")));
}

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_make_room_and_what_is_waited_for_does_not() {
    let mut configurator = started();
    let name = |number: usize| format!("80/{number:04}");
    for number in 0..MAX_FOLLOWED {
        assert!(configurator.demand(&need(&name(number)), Instant::now()));
    }
    tokio::time::advance(2 * RECENTLY).await;
    assert!(!configurator.demand(&need("80/more"), Instant::now()), "all are waited for");
    assert!(configurator.demand(&need(&name(1)), Instant::now()), "what is followed already is not more");

    for number in 0..MAX_FOLLOWED {
        configurator.set_host(host(&name(number), "nobody"), Instant::now());
    }
    configurator.remove_cluster("nobody");
    configurator.publish();
    configurator.world().routes["80"].hosts.find("0000").unwrap().usage.as_ref().unwrap().touch();
    tokio::time::advance(2 * RECENTLY).await;
    assert!(configurator.demand(&need("80/more"), Instant::now()));
    let hosts = configurator.wanted().hosts;
    assert_eq!(hosts.len(), MAX_FOLLOWED - MAX_FOLLOWED / 8 + 1);
    assert!(hosts.contains("80/0000") && !hosts.contains("80/0001") && hosts.contains("80/more"));
}
