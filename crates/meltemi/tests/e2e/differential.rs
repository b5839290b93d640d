//! The main oracle of the data plane: a random Envoy configuration and random requests, given to a real Envoy and to our
//! proxy, must give the same status, headers, body, attempts, chosen cluster and response flags.
//!
//! A fixed set of seeds runs in CI. More: `MELTEMI_SEEDS=1000-1500 cargo test -p meltemi --test e2e differential`.
//! What differs on purpose is in [`on_purpose`], with the reason.

use crate::support::{Answer, Backend, Process, VOLATILE, envoy, exchange, free_address, meltemi};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::process::Command;

const CI_SEEDS: RangeInclusive<u64> = 1..=24;
const REQUESTS: usize = 40;

const HOSTS: &[&str] = &["a.example", "b.example", "api.b.example", "deep.api.b.example", "www.c", "www.other", "none"];
const DOMAINS: &[&str] = &["a.example", "a.example:8080", "*.b.example", "api.b.example", "www.*", "*"];
const PATHS: &[&str] = &[
    "/",
    "/a",
    "/a/b",
    "/a/b/c?x=1",
    "/ab",
    "/b?x=2&y=3",
    "/B",
    "/c/1234/d",
    "/c/x/d?debug",
    "/a//b",
    "/a/./b",
    "/a%20b",
];
const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"];

struct Generator {
    random: StdRng,
    routes: usize,
}

impl Generator {
    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.random.random_range(0..from.len())]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn path_match(&mut self) -> Value {
        let mut found = match self.random.random_range(0..6) {
            0 | 1 => json!({ "prefix": self.pick(&["/", "/a", "/b", "/c/"]) }),
            2 => json!({ "path": self.pick(&["/a", "/a/b", "/b", "/c/x/d"]) }),
            3 => json!({ "path_separated_prefix": self.pick(&["/a", "/b", "/c"]) }),
            _ => json!({ "safe_regex": { "regex": self.pick(&["/c/[0-9]+/.*", "/a.*", "/(a|b)/?", "/[a-z]"]) } }),
        };
        if self.chance(20) {
            found["case_sensitive"] = json!(false);
        }
        if found.get("safe_regex").is_some() {
            found.as_object_mut().expect("an object").remove("case_sensitive");
        }
        found
    }

    fn string_match(&mut self) -> Value {
        let mut found = match self.random.random_range(0..5) {
            0 => json!({ "exact": self.pick(&["one", "Two", ""]) }),
            1 => json!({ "prefix": self.pick(&["o", "t"]) }),
            2 => json!({ "suffix": self.pick(&["e", "o"]) }),
            3 => json!({ "contains": self.pick(&["n", "w"]) }),
            _ => json!({ "safe_regex": { "regex": self.pick(&["[a-z]+", "o.e", "T.*"]) } }),
        };
        if found == json!({ "exact": "" }) {
            return json!({ "exact": "one" });
        }
        if found.get("safe_regex").is_none() && self.chance(30) {
            found["ignore_case"] = json!(true);
        }
        found
    }

    fn header_match(&mut self) -> Value {
        let name = self.pick(&["x-one", "x-two", ":method", "x-missing"]);
        let mut found = if self.chance(30) {
            json!({ "name": name, "present_match": self.chance(70) })
        } else {
            json!({ "name": name, "string_match": self.string_match() })
        };
        if self.chance(25) {
            found["invert_match"] = json!(true);
        }
        if self.chance(20) && found.get("string_match").is_some() {
            found["treat_missing_header_as_empty"] = json!(true);
        }
        found
    }

    fn route_match(&mut self) -> Value {
        let mut found = self.path_match();
        if self.chance(35) {
            found["headers"] = json!([self.header_match()]);
        }
        if self.chance(20) {
            found["query_parameters"] = if self.chance(50) {
                json!([{ "name": self.pick(&["x", "y", "debug"]), "present_match": true }])
            } else {
                json!([{ "name": self.pick(&["x", "y"]), "string_match": { "exact": self.pick(&["1", "2", "3"]) } }])
            };
        }
        found
    }

    fn header_rules(&mut self, into: &mut Value, request: bool) {
        let (add, remove) = if request {
            ("request_headers_to_add", "request_headers_to_remove")
        } else {
            ("response_headers_to_add", "response_headers_to_remove")
        };
        if self.chance(35) {
            let value =
                self.pick(&["fixed", "%PROTOCOL%", "%REQ(x-one)%", "a%%b", "%REQ(x-missing?x-two)%", "%REQ(:PATH):3%"]);
            let action = self.pick(&[
                "APPEND_IF_EXISTS_OR_ADD",
                "ADD_IF_ABSENT",
                "OVERWRITE_IF_EXISTS_OR_ADD",
                "OVERWRITE_IF_EXISTS",
            ]);
            let key = self.pick(&["x-one", "x-added", "x-backend-header"]);
            into[add] = json!([{ "header": { "key": key, "value": value }, "append_action": action }]);
        }
        if self.chance(15) {
            into[remove] = json!([self.pick(&["x-two", "x-backend-header", "x-none"])]);
        }
    }

    fn rewrite(&mut self, matched: &Value, action: &mut Value) {
        match self.random.random_range(0..5) {
            0 if matched.get("safe_regex").is_none() => {
                action["prefix_rewrite"] = json!(self.pick(&["/", "/new", "/new/"]))
            }
            1 => {
                action["regex_rewrite"] = json!({ "pattern": { "regex": "/([a-z]+)/?" }, "substitution": self.pick(&["/\\1-x/", "/y", "\\0\\0"]) })
            }
            _ => {}
        }
        match self.random.random_range(0..6) {
            0 => action["host_rewrite_literal"] = json!("rewritten.example"),
            1 => action["host_rewrite_header"] = json!("x-one"),
            2 => {
                action["host_rewrite_path_regex"] =
                    json!({ "pattern": { "regex": "^/([a-z]+).*$" }, "substitution": "\\1.example" })
            }
            _ => {}
        }
    }

    fn retry(&mut self) -> Value {
        json!({
            "retry_on": self.pick(&["5xx", "gateway-error", "retriable-4xx", "retriable-status-codes", "connect-failure", "reset", "refused-stream"]),
            "num_retries": self.random.random_range(1..4),
            "retriable_status_codes": [503, 418],
            "retry_back_off": { "base_interval": "0.001s", "max_interval": "0.005s" },
        })
    }

    fn forward(&mut self, matched: &Value) -> Value {
        let mut action = match self.random.random_range(0..12) {
            0 => json!({ "weighted_clusters": { "clusters": [
                { "name": "one", "weight": 0 }, { "name": "two", "weight": 10 }] } }),
            1 => json!({ "cluster": "absent" }),
            2 => json!({ "cluster": "empty" }),
            3 => json!({ "cluster": "refused" }),
            4 => json!({ "cluster_header": "x-cluster" }),
            n if n < 9 => json!({ "cluster": "one" }),
            _ => json!({ "cluster": "two" }),
        };
        if action["cluster"] == "absent" && self.chance(50) {
            action["cluster_not_found_response_code"] = json!(self.pick(&["NOT_FOUND", "INTERNAL_SERVER_ERROR"]));
        }
        self.rewrite(matched, &mut action);
        if self.chance(40) {
            action["retry_policy"] = self.retry();
        }
        action["timeout"] = json!(self.pick(&["0s", "0.300s", "15s"]));
        if self.chance(15) {
            action["max_stream_duration"] = json!({ "max_stream_duration": "10s" });
        }
        action
    }

    fn redirect(&mut self) -> Value {
        let mut action = json!({});
        if self.chance(50) {
            action["host_redirect"] = json!("moved.example");
        }
        match self.random.random_range(0..4) {
            0 => action["https_redirect"] = json!(true),
            1 => action["scheme_redirect"] = json!("https"),
            _ => {}
        }
        match self.random.random_range(0..4) {
            0 => action["path_redirect"] = json!(self.pick(&["/there", "/there?z=1"])),
            1 => action["prefix_rewrite"] = json!("/prefix/"),
            _ => {}
        }
        if self.chance(30) {
            action["port_redirect"] = json!(8443);
        }
        if self.chance(30) {
            action["strip_query"] = json!(true);
        }
        if self.chance(50) {
            action["response_code"] =
                json!(self.pick(&["FOUND", "SEE_OTHER", "TEMPORARY_REDIRECT", "PERMANENT_REDIRECT"]));
        }
        action
    }

    fn route(&mut self) -> Value {
        let matched = self.route_match();
        self.routes += 1;
        let mut route = json!({ "name": format!("route-{}", self.routes), "match": matched });
        match self.random.random_range(0..10) {
            0 => {
                let mut direct = json!({ "status": self.pick(&[&200, &204, &403, &503]) });
                if self.chance(60) {
                    direct["body"] = json!({ "inline_string": "direct" });
                }
                route["direct_response"] = direct;
            }
            1 if route["match"].get("safe_regex").is_none() => route["redirect"] = self.redirect(),
            _ => route["route"] = self.forward(&matched),
        }
        self.header_rules(&mut route, true);
        self.header_rules(&mut route, false);
        if self.chance(15) {
            route["typed_per_filter_config"] = json!({ "envoy.filters.http.fault": fault(Some(self.chance(50))) });
        }
        route
    }

    fn virtual_hosts(&mut self) -> Value {
        let mut domains: Vec<&str> = DOMAINS.to_vec();
        let mut hosts = Vec::new();
        while !domains.is_empty() && hosts.len() < 4 {
            let index = self.random.random_range(0..domains.len());
            let mut mine = vec![domains.swap_remove(index)];
            if !domains.is_empty() && self.chance(30) {
                mine.push(domains.swap_remove(0));
            }
            let count = self.random.random_range(1..5);
            let routes: Vec<Value> = (0..count).map(|_| self.route()).collect();
            let mut host = json!({ "name": format!("host-{}", hosts.len()), "domains": mine, "routes": routes });
            if self.chance(10) {
                host["require_tls"] = json!("ALL");
            }
            self.header_rules(&mut host, true);
            self.header_rules(&mut host, false);
            hosts.push(host);
        }
        Value::Array(hosts)
    }

    fn configuration(&mut self, setup: &Setup, listen: SocketAddr) -> Value {
        let mut manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "differential",
            "route_config": {
                "name": "routes",
                "validate_clusters": false,
                "virtual_hosts": self.virtual_hosts(),
                // What the client sees of the decision.
                "response_headers_to_add": [
                    { "header": { "key": "x-seen-flags", "value": "%RESPONSE_FLAGS%" } },
                    { "header": { "key": "x-seen-cluster", "value": "%UPSTREAM_CLUSTER%" } },
                    { "header": { "key": "x-seen-route", "value": "%ROUTE_NAME%" } },
                    { "header": { "key": "x-seen-details", "value": "%RESPONSE_CODE_DETAILS%" } },
                ],
            },
            "http_filters": [
                { "name": "envoy.filters.http.fault", "typed_config": fault(None) },
                { "name": "envoy.filters.http.router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } },
            ],
            "normalize_path": self.chance(60),
            "merge_slashes": self.chance(30),
            "use_remote_address": self.chance(30),
        });
        if self.chance(40) {
            manager["server_name"] = json!("istio-envoy");
            manager["server_header_transformation"] =
                json!(self.pick(&["OVERWRITE", "APPEND_IF_ABSENT", "PASS_THROUGH"]));
        }
        if self.chance(20) {
            manager["strip_matching_host_port"] = json!(true);
        }
        json!({ "static_resources": {
            "listeners": [{ "name": "l", "address": socket(listen), "filter_chains": [{ "filters": [
                { "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }] }] }],
            "clusters": [
                cluster("one", &[setup.one.address]),
                cluster("two", &[setup.two.address]),
                cluster("empty", &[]),
                cluster("refused", &[setup.refused]),
            ],
        } })
    }

    fn request(&mut self, id: &str) -> String {
        let method = self.pick(METHODS);
        let mut request = format!("{method} {} HTTP/1.1\r\nhost: {}\r\n", self.pick(PATHS), self.host());
        request += &format!("x-test-id: {id}\r\nconnection: close\r\n");
        for name in ["x-one", "x-two"] {
            if self.chance(50) {
                request += &format!("{name}: {}\r\n", self.pick(&["one", "two", "Two", "none"]));
            }
        }
        if self.chance(30) {
            request += &format!("x-cluster: {}\r\n", self.pick(&["one", "two", "nowhere"]));
        }
        if self.chance(15) {
            request += &format!("x-fail-first: {}\r\n", self.random.random_range(1..4));
        } else if self.chance(10) {
            request += &format!("x-want-status: {}\r\n", self.pick(&["404", "409", "418", "500", "502"]));
        }
        if self.chance(5) {
            request += "x-want-delay-ms: 600\r\n";
        }
        match self.random.random_range(0..4) {
            0 if matches!(method, "POST" | "PUT") => request += "content-length: 5\r\n\r\nhello",
            1 if matches!(method, "POST" | "PUT") => {
                request += "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            }
            _ if matches!(method, "POST" | "PUT") => request += "content-length: 0\r\n\r\n",
            _ => request += "\r\n",
        }
        request
    }

    fn host(&mut self) -> String {
        let host = self.pick(HOSTS).to_owned();
        if self.chance(15) { format!("{host}:8080") } else { host }
    }
}

/// An abort for requests with a header, or for all of a route.
fn fault(always: Option<bool>) -> Value {
    let mut fault = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault" });
    let Some(always) = always else { return fault };
    fault["abort"] = json!({ "http_status": 418, "percentage": { "numerator": 100 } });
    if !always {
        fault["headers"] = json!([{ "name": "x-one", "string_match": { "exact": "two" } }]);
    }
    fault
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn cluster(name: &str, endpoints: &[SocketAddr]) -> Value {
    let ends: Vec<Value> = endpoints.iter().map(|a| json!({ "endpoint": { "address": socket(*a) } })).collect();
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": ends }] },
    })
}

struct Setup {
    one: Backend,
    two: Backend,
    refused: SocketAddr,
}

/// What two proxies must agree on.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    attempts: u32,
}

fn seen(answer: Answer, setup: &Setup, id: &str) -> Seen {
    let mut headers: Vec<(String, String)> = answer
        .headers
        .iter()
        .filter(|(name, _)| !on_purpose(name))
        .map(|(name, value)| {
            let value = if VOLATILE.contains(&name.as_str()) { "present" } else { value.as_str() };
            (name.clone(), value.to_owned())
        })
        .collect();
    headers.sort();
    let body = answer.text().replace(id, "ID").split('\n').map(rounded).collect::<Vec<_>>().join("\n");
    Seen { status: answer.status, headers, body, attempts: setup.one.attempts(id) + setup.two.attempts(id) }
}

/// The time left shrinks with each attempt by however long that took: alike to a quarter of a second.
fn rounded(line: &str) -> String {
    let left = line.strip_prefix("x-envoy-expected-rq-timeout-ms: ").and_then(|ms| ms.parse::<u64>().ok());
    left.map_or_else(|| line.to_owned(), |ms| format!("expected timeout about {} ms", (ms + 125) / 250 * 250))
}

/// The request, and the lines of the two answers that are not the same.
fn describe(request: &str, theirs: &Result<Seen, String>, ours: &Result<Seen, String>) -> String {
    let lines = |seen: &Result<Seen, String>| match seen {
        Err(reason) => vec![reason.clone()],
        Ok(seen) => {
            let mut lines = vec![format!("status {}", seen.status), format!("attempts {}", seen.attempts)];
            lines.extend(seen.headers.iter().map(|(name, value)| format!("response header {name}: {value}")));
            lines.extend(seen.body.lines().map(|line| format!("body line {line}")));
            lines
        }
    };
    let (theirs, ours) = (lines(theirs), lines(ours));
    let only = |mark: &str, these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).map(|line| format!("{mark} {line}\n")).collect::<String>()
    };
    format!("{}\n{}{}", request.trim_end(), only("envoy  ", &theirs, &ours), only("meltemi", &ours, &theirs))
}

/// Response headers that may differ: the framing of a body is each proxy's own choice (RFC 9112 section 6).
fn on_purpose(header: &str) -> bool {
    matches!(header, "transfer-encoding" | "connection" | "keep-alive")
}

fn run_seed(seed: u64, setup: &Setup, envoy: &std::path::Path) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a folder");
    let mut generator = Generator { random: StdRng::seed_from_u64(seed), routes: 0 };
    let (theirs, ours) = (free_address(), free_address());
    let text = generator.configuration(setup, theirs).to_string();
    let our_text =
        text.replace(&format!("\"port_value\":{}", theirs.port()), &format!("\"port_value\":{}", ours.port()));
    let (their_file, our_file) = (dir.path().join("envoy.json"), dir.path().join("meltemi.json"));
    std::fs::write(&their_file, &text).expect("write");
    std::fs::write(&our_file, our_text).expect("write");
    let mut command = Command::new(envoy);
    command.arg("-c").arg(&their_file).args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]);
    let mut their_process = Process::start("envoy", &mut command, dir.path());
    let mut command = meltemi();
    command.args(["proxy", "-c"]).arg(&our_file).args(["--concurrency", "1"]);
    let mut our_process = Process::start("meltemi", &mut command, dir.path());
    their_process.wait_listening(theirs);
    our_process.wait_listening(ours);
    let mut differences = Vec::new();
    for number in 0..REQUESTS {
        let id = format!("{seed}-{number}");
        let request = generator.request(&id);
        let [theirs, ours] = [(theirs, "e"), (ours, "m")].map(|(address, side)| {
            let id = format!("{id}-{side}");
            let request = request.replace(&format!("x-test-id: {seed}-{number}"), &format!("x-test-id: {id}"));
            exchange(address, request.as_bytes()).map(|answer| seen(answer, setup, &id))
        });
        if theirs != ours {
            differences.push(describe(&format!("seed {seed} request {number}:\n{request}"), &theirs, &ours));
        }
        if !our_process.is_running() {
            differences.push(format!("seed {seed}: our proxy ended\n{}", our_process.output()));
            break;
        }
    }
    if !differences.is_empty()
        && let Some(keep) = std::env::var_os("MELTEMI_KEEP")
    {
        std::fs::write(std::path::Path::new(&keep).join(format!("seed-{seed}.json")), text).expect("write");
    }
    differences
}

#[test]
fn the_same_configuration_gives_the_same_answers_as_envoy() {
    let envoy = match envoy() {
        Ok(path) => path,
        Err(reason) => return println!("{reason}"),
    };
    let seeds = std::env::var("MELTEMI_SEEDS").ok().and_then(|text| {
        let (from, to) = text.split_once('-')?;
        Some(from.parse().ok()?..=to.parse().ok()?)
    });
    let setup = Setup { one: Backend::start("one"), two: Backend::start("two"), refused: free_address() };
    let (mut differences, mut played) = (Vec::new(), 0);
    for seed in seeds.unwrap_or(CI_SEEDS) {
        differences.extend(run_seed(seed, &setup, &envoy));
        played += REQUESTS;
    }
    println!("{played} requests, {} differences", differences.len());
    assert!(differences.is_empty(), "{}", differences[..differences.len().min(40)].join("\n"));
}
