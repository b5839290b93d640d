use super::*;

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut query = vec![0xAB, 0xCD, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query
}

fn names() -> Names {
    BTreeMap::from([("web.default.svc.cluster.local".to_owned(), vec![Ipv4Addr::new(10, 96, 0, 9)])])
}

#[test]
fn a_service_has_an_address_and_other_names_do_not_exist() {
    let check = |name: &str, kind, code: u8, answers: u8| {
        let answer = respond(&query(name, kind), &names()).unwrap();
        assert_eq!(answer[..3], [0xAB, 0xCD, 0x85], "{name}");
        assert_eq!((answer[3] & 0x0F, answer[7]), (code, answers), "{name} {kind}");
        answer
    };
    let answer = check("Web.Default.svc.cluster.local", 1, 0, 1);
    assert_eq!(answer[answer.len() - 4..], [10, 96, 0, 9]);
    check("web.default.svc.cluster.local", 28, 0, 0);
    check("example.com", 1, 3, 0);
}

#[test]
fn what_is_no_query_gets_no_answer() {
    let whole = query("web.default.svc.cluster.local", 1);
    for length in 0..whole.len() {
        assert_eq!(respond(&whole[..length], &names()), None, "{length}");
    }
    let mut response = whole;
    response[2] |= 0x80;
    assert_eq!(respond(&response, &names()), None);
}
