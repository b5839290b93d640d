use super::*;
use crate::images::Images;

#[test]
fn an_address_leads_to_each_ready_replica_alike() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
                spec: {clusterIP: 10.96.0.9, selector: {app: web}, ports: [{port: 80, targetPort: http}]}\n---\n\
                apiVersion: v1\nkind: Service\nmetadata: {name: none, namespace: shop}\n\
                spec: {selector: {app: none}, ports: [{port: 81}]}\n---\n\
                apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n\
                spec: {replicas: 2, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: meltemi, \
                ports: [{name: http, containerPort: 8080}]}]}}}\n";
    let documents = meltemi_config::parse_documents("m.yaml", text);
    let objects: Vec<_> = documents.into_iter().map(|d| d.object.expect("a good document")).collect();
    let desired =
        crate::workload::desired(&objects, &Images::new(BTreeMap::new(), "/opt/meltemi".into()), &Default::default());
    let addresses = BTreeMap::from([("shop/none".to_owned(), Ipv4Addr::new(10, 96, 0, 10))]);
    let place = |last| Ipv4Addr::new(10, 244, 0, last);
    let ready = [(&*desired.list[0], place(2)), (&*desired.list[1], place(3))];
    let expected = "\
*nat
:MELTEMI_SERVICES - [0:0]
-F MELTEMI_SERVICES
-A MELTEMI_SERVICES -d 10.96.0.9/32 -p tcp --dport 80 -m statistic --mode random --probability 0.50000000 -j DNAT --to-destination 10.244.0.2:8080
-A MELTEMI_SERVICES -d 10.96.0.9/32 -p tcp --dport 80 -j DNAT --to-destination 10.244.0.3:8080
-A MELTEMI_SERVICES -d 10.96.0.10/32 -p tcp --dport 81 -j DNAT --to-destination 127.0.0.1:1
COMMIT
";
    assert_eq!(restore_text(&objects, &addresses, ready.into_iter()), expected);
}
