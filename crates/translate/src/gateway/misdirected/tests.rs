use super::{NAMED, Neighbours, patterns};

fn neighbours(own: &[&str], others: &[&str]) -> Neighbours {
    let set = |hosts: &[&str]| hosts.iter().map(ToString::to_string).collect();
    Neighbours { own: set(own), others: set(others) }
}

#[test]
fn a_host_is_covered_by_itself_then_by_ever_shorter_wildcards() {
    let all = |host| patterns(host).collect::<Vec<_>>();
    assert_eq!(all("a.b.example"), ["a.b.example", "*.b.example", "*.example", "*"]);
    assert_eq!(all("*.b.example"), ["*.b.example", "*.example", "*"]);
    assert_eq!(all("local"), ["local", "*"]);
}

#[test]
fn a_host_is_of_the_server_whose_name_for_it_is_the_more_specific() {
    let beside = neighbours(&["*.example", "x.shop.example"], &["a.example", "*.shop.example", "*"]);
    for (host, elsewhere) in [
        ("a.example", true),
        ("b.example", false),
        ("*.example", false),
        ("x.shop.example", false),
        ("y.shop.example", true),
        ("deep.y.shop.example", true),
        ("other.org", true),
    ] {
        assert_eq!(beside.has(host), elsewhere, "{host}");
    }
    assert!(!neighbours(&["a.example"], &["b.example"]).has("c.example"), "nobody's");
}

#[test]
fn a_crowded_port_names_only_the_hosts_that_its_own_wildcards_cover() {
    let crowd: Vec<String> = (0..NAMED).map(|n| format!("h{n}.org")).collect();
    let mut others: Vec<&str> = crowd.iter().map(String::as_str).collect();
    assert_eq!(neighbours(&["*.example"], &others).domains().len(), NAMED);
    others.push("a.example");
    assert_eq!(neighbours(&["*.example"], &others).domains(), ["a.example", "*"]);
    assert_eq!(neighbours(&["b.example"], &others).domains(), ["*"]);
    assert_eq!(neighbours(&["*"], &others).domains().len(), NAMED + 1);
}
