use super::*;
use hickory_proto::op::Query;
use meltemi_proto::istio::networking::nds::v1::name_table::NameInfo;

fn table() -> NameTable {
    let info = |ips: &[&str], short: &str, namespace: &str| NameInfo {
        ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
        registry: "Kubernetes".to_owned(),
        shortname: short.to_owned(),
        namespace: namespace.to_owned(),
    };
    let mut table = NameTable::default();
    for (host, info) in [
        ("catalog.shop.svc.cluster.local", info(&["10.96.0.1", "fd00::1"], "catalog", "shop")),
        ("ledger.bank.svc.cluster.local", info(&["10.96.0.2"], "ledger", "bank")),
        ("*.example.com", info(&["240.240.0.1"], "", "shop")),
        ("empty.shop.svc.cluster.local", info(&[], "empty", "shop")),
    ] {
        table.table.insert(host.to_owned(), info);
    }
    table
}

#[test]
fn names_are_found_in_the_forms_that_resolvers_ask_for() {
    let names = Names::from_table(&table(), "shop");
    for (name, expected) in [
        ("catalog.shop.svc.cluster.local", Some(2)),
        ("CATALOG.shop.svc.cluster.local.", Some(2)),
        ("catalog", Some(2)),
        ("catalog.shop", Some(2)),
        ("ledger", None),
        ("ledger.bank.svc", Some(1)),
        ("api.example.com", Some(1)),
        ("a.b.example.com", Some(1)),
        ("example.com", None),
        ("empty", Some(0)),
        ("elsewhere.org", None),
    ] {
        assert_eq!(names.find(name).map(<[_]>::len), expected, "{name}");
    }
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn start(upstreams: Vec<SocketAddr>) -> SocketAddr {
    let (_, names) = watch::channel(Arc::new(Names::from_table(&table(), "shop")));
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    tokio::spawn(Server::new(names, upstreams, None).serve_udp(Arc::new(udp)));
    address
}

async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question(name, kind), server).await.unwrap();
    let mut buffer = [0; 1500];
    let length = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

#[tokio::test]
async fn the_table_answers_by_record_type() {
    let server = start(Vec::new()).await;
    let v4 = ask(server, "catalog.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(v4.answers.len(), 1);
    assert_eq!(v4.answers[0].data, RData::A("10.96.0.1".parse().unwrap()));
    let v6 = ask(server, "ledger.bank.svc.", RecordType::AAAA).await;
    assert_eq!((v6.metadata.response_code, v6.answers.len()), (ResponseCode::NoError, 0));
}

#[tokio::test]
async fn other_names_go_to_the_upstream_or_fail() {
    let server = start(Vec::new()).await;
    let answer = ask(server, "elsewhere.org.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let upstream = start(Vec::new()).await;
    let server = start(vec![upstream]).await;
    assert_eq!(ask(server, "api.example.com.", RecordType::A).await.answers.len(), 1);
}

#[test]
fn resolv_conf_names_its_servers() {
    let text = "search x\nnameserver 10.0.0.2\n nameserver fd00::2\nnameserver bogus\n";
    assert_eq!(nameservers(text), ["10.0.0.2:53".parse().unwrap(), "[fd00::2]:53".parse().unwrap()]);
}
