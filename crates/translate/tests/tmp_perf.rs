use meltemi_model::*;
use meltemi_registry::Registry;
use meltemi_translate::*;
use std::sync::Arc;
use std::time::Instant;
#[test]
fn perf() {
    for n in [1000usize, 10000] {
        let mut y = String::new();
        for i in 0..n {
            y.push_str(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s{i}, namespace: ns{}}}\nspec: {{clusterIP: 10.{}.{}.{}, selector: {{app: s{i}}}, ports: [{{name: http, port: 80}}, {{name: grpc, port: 81}}]}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: s{i}-0, namespace: ns{}, labels: {{app: s{i}, security.istio.io/tlsMode: istio}}}}\nspec: {{serviceAccountName: sa, containers: [{{name: c, image: x}}]}}\nstatus: {{podIP: 11.{}.{}.{}}}\n---\n", i % 100, i / 65536, (i / 256) % 256, i % 256, i % 100, i / 65536, (i / 256) % 256, i % 256));
        }
        let mut objects = Vec::new();
        for d in y.split("---\n").collect::<Vec<_>>().chunks(1000) { objects.extend(meltemi_config::objects("x", &d.join("---\n")).unwrap()); }
        let t = Instant::now();
        let mut registry = Registry::default();
        let update = registry.load(&objects);
        println!("{n}: load {:?}", t.elapsed());
        let t = Instant::now();
        let snapshot = Snapshot::build(Options::default(), &update);
        println!("{n}: build {:?}", t.elapsed());
        let node = |i: usize| Node::new(NodeDescription { id: format!("sidecar~11.0.{}.{}~p.ns1~ns1.svc.cluster.local", i / 256, i % 256), ..Default::default() }).unwrap();
        let t = Instant::now();
        snapshot.scope(&node(1));
        println!("{n}: scope {:?}", t.elapsed());
        let cache = Cache::default();
        for k in 0..2 {
            for url in [type_urls::CLUSTER, type_urls::ENDPOINT, type_urls::LISTENER, type_urls::ROUTE] {
                let t = Instant::now();
                let got = generate(&snapshot, &node(k), url, None, &cache);
                println!("{n}: node {k} {url} {} {:?}", got.len(), t.elapsed());
            }
        }
        let mut pod = objects.iter().find(|o| &*o.meta.name == "s7-0").unwrap().clone();
        let meltemi_config::Spec::Pod(spec) = &pod.spec else { panic!() };
        let mut spec = (**spec).clone();
        spec.status.pod_ip = "12.0.0.1".into();
        pod.spec = meltemi_config::Spec::Pod(Arc::new(spec));
        let t = Instant::now();
        let update = registry.apply([(pod.key(), Some(pod.clone()))]);
        println!("{n}: registry endpoint change {:?}", t.elapsed());
        let t = Instant::now();
        let (next, change) = snapshot.next(&update);
        println!("{n}: next {:?} {:?}", t.elapsed(), change.endpoints);
        let name: Arc<str> = "outbound|80||s7.ns7.svc.cluster.local".into();
        let t = Instant::now();
        for i in 0..100 { assert_eq!(generate(&next, &node(i), type_urls::ENDPOINT, Some(&[name.clone()]), &cache).len(), 1); }
        println!("{n}: 100 nodes' eds {:?}", t.elapsed());
        let t = Instant::now();
        for i in 0..100 { assert_eq!(generate(&next, &node(i), type_urls::CLUSTER, Some(&[name.clone()]), &cache).len(), 1); }
        println!("{n}: 100 nodes' cds of one {:?}", t.elapsed());
    }
}
