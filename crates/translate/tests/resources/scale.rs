//! Equal sidecars cost one walk over the mesh, not one each.

use std::time::{Duration, Instant};

use meltemi_translate::type_urls;

use crate::mesh::{Mesh, service, sidecar};

const SERVICES: usize = 500;
const PROXIES: usize = 100;

#[test]
fn a_second_replica_costs_a_fraction_of_the_first() {
    let documents: String =
        (0..SERVICES).map(|i| service(&format!("s{i}"), &format!("10.1.{}.{}", i / 250, i % 250 + 1), 80, "http")).collect();
    let mesh = Mesh::new(&documents);
    let node = sidecar();
    let timed = |type_url| {
        let start = Instant::now();
        let names = mesh.names(&node, type_url).len();
        assert!(names > 0);
        start.elapsed()
    };
    for type_url in [type_urls::LISTENER, type_urls::ROUTE] {
        let first = timed(type_url);
        let others: Duration = (0..PROXIES).map(|_| timed(type_url)).sum();
        println!("{type_url}: first {first:?}, then {:?} each", others / PROXIES as u32);
        assert!(others / (PROXIES as u32) < first / 3, "first {first:?}, {PROXIES} others {others:?}");
    }
}
