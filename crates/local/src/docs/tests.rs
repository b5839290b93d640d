use super::*;

fn objects(text: &str) -> Vec<Object> {
    meltemi_config::parse_documents("m.yaml", text).into_iter().map(|d| d.object.expect("a good document")).collect()
}

fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n---\n")
}

fn read(files: &BTreeMap<String, String>, name: &str) -> Value {
    serde_json::from_str(&files[name]).expect("JSON")
}

#[test]
fn services_get_addresses_as_an_api_server_gives_them() {
    let text = service("plain", "ports: [{port: 80}]")
        + &service("fixed", "clusterIP: 10.96.7.7, ports: [{port: 80}]")
        + &service("headless", "clusterIP: None, ports: [{port: 80}]")
        + &service("alias", "type: ExternalName, externalName: example.com");
    let objects = objects(&text);
    let addresses = addresses(&objects);
    assert_eq!(addresses.keys().collect::<Vec<_>>(), ["istio-system/istio-ingressgateway", "shop/plain"]);
    let files = mirror(&objects, &addresses);
    let cluster_ip = |name: &str| read(&files, &format!("services-shop-{name}.json"))["spec"]["clusterIP"].clone();
    assert_eq!(cluster_ip("plain"), json!(addresses["shop/plain"]));
    assert_eq!(cluster_ip("fixed"), json!("10.96.7.7"));
    assert_eq!(cluster_ip("headless"), json!("None"));
    assert_eq!(cluster_ip("alias"), Value::Null);
}

#[test]
fn mirrored_documents_mean_the_same() {
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: shop, labels: {a: b}}\n\
                spec: {hosts: [web], http: [{timeout: 1m30s, route: [{destination: {host: web, port: {number: 80}}, weight: 10}]}]}\n\
                ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: shop}\ndata: {k: v}\n\
                ---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {template: {spec: {containers: []}}}\n";
    let objects = objects(text);
    let files = mirror(&objects, &BTreeMap::new());
    assert_eq!(files.keys().collect::<Vec<_>>(), ["configmaps-shop-c.json", "virtualservices-shop-v.json"]);
    for (original, name) in objects.iter().zip(["virtualservices-shop-v.json", "configmaps-shop-c.json"]) {
        let again = meltemi_config::parse_documents(name, &files[name]).remove(0).object;
        assert_eq!(again.as_ref(), Some(original));
    }
}

#[test]
fn both_kinds_of_gateway_are_mirrored_and_have_their_ports() {
    let text = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: istio-system}\n\
                spec: {servers: [{port: {number: 8089, name: a, protocol: HTTP}, hosts: ['*']}]}\n---\n\
                apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: istio-system}\nspec:\n  \
                gatewayClassName: istio\n  addresses: [{type: Hostname, value: istio-ingressgateway}]\n  \
                listeners: [{name: b, port: 8090, protocol: TCP}]\n---\n\
                apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: elsewhere}\nspec:\n  \
                gatewayClassName: istio\n  listeners: [{name: c, port: 8091, protocol: TCP}]\n";
    let objects = objects(text);
    assert_eq!(mirror(&objects, &BTreeMap::new()).len(), 3);
    assert_eq!(named_gateway_ports(&objects), BTreeSet::from([8089, 8090]));
}

#[test]
fn gateway_ports_are_those_of_gateways_and_80() {
    let text = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec:\n  servers:\n  \
                - {port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}\n  \
                - {port: {number: 31400, name: b, protocol: TCP}, hosts: ['*']}\n";
    let found = gateway_ports(&objects(text));
    let publish = |port, target, tls, http| Publish { port, target, tls, http };
    let expected =
        [publish(80, 8080, false, true), publish(443, 8443, true, true), publish(31400, 31400, false, false)];
    assert_eq!(found, expected);
    assert_eq!(named_gateway_ports(&objects(text)), BTreeSet::from([443, 31400]));
    let service = gateway_service(&[], Ipv4Addr::new(10, 96, 0, 1), &found).expect("made");
    let parsed = meltemi_config::parse_documents(&service.0, &service.1).remove(0);
    assert!(parsed.check().is_empty(), "{:?}", parsed.check());
}

#[test]
fn a_folder_holds_what_it_is_given() {
    let place = tempfile::tempdir().expect("a folder");
    let mut folder = Folder::create(place.path().join("config")).expect("a folder");
    let files = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    folder.sync(files(&[("a", "1"), ("b", "2")])).expect("written");
    folder.sync(files(&[("b", "3"), ("c", "4")])).expect("written");
    let mut found: Vec<_> = fs::read_dir(folder.path())
        .expect("read")
        .map(|entry| entry.expect("entry"))
        .map(|entry| (entry.file_name().into_string().expect("name"), fs::read_to_string(entry.path()).expect("text")))
        .collect();
    found.sort();
    assert_eq!(found, [("b".to_owned(), "3".to_owned()), ("c".to_owned(), "4".to_owned())]);
}
