//! One HTTP/1 listener: virtual hosts, route matches, rewrites, redirects, header rules, retries, timeouts, faults.

use super::client::{Action, Probe};
use super::manager::{self, fault};
use super::random::Random;
use super::{Plan, cluster};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const PROBES: usize = 40;

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

struct Generator<'a> {
    random: &'a mut Random,
    routes: usize,
}

impl Generator<'_> {
    fn path_match(&mut self) -> Value {
        let mut found = match self.random.below(6) {
            0 | 1 => json!({ "prefix": self.random.pick(&["/", "/a", "/b", "/c/"]) }),
            2 => json!({ "path": self.random.pick(&["/a", "/a/b", "/b", "/c/x/d"]) }),
            3 => json!({ "path_separated_prefix": self.random.pick(&["/a", "/b", "/c"]) }),
            _ => {
                json!({ "safe_regex": { "regex": self.random.pick(&["/c/[0-9]+/.*", "/a.*", "/(a|b)/?", "/[a-z]"]) } })
            }
        };
        if self.random.chance(20) {
            found["case_sensitive"] = json!(false);
        }
        if found.get("safe_regex").is_some() {
            found.as_object_mut().expect("an object").remove("case_sensitive");
        }
        found
    }

    fn string_match(&mut self) -> Value {
        let mut found = match self.random.below(5) {
            0 => json!({ "exact": self.random.pick(&["one", "Two", ""]) }),
            1 => json!({ "prefix": self.random.pick(&["o", "t"]) }),
            2 => json!({ "suffix": self.random.pick(&["e", "o"]) }),
            3 => json!({ "contains": self.random.pick(&["n", "w"]) }),
            _ => json!({ "safe_regex": { "regex": self.random.pick(&["[a-z]+", "o.e", "T.*"]) } }),
        };
        if found == json!({ "exact": "" }) {
            return json!({ "exact": "one" });
        }
        if found.get("safe_regex").is_none() && self.random.chance(30) {
            found["ignore_case"] = json!(true);
        }
        found
    }

    fn header_match(&mut self) -> Value {
        let name = self.random.pick(&["x-one", "x-two", ":method", "x-missing"]);
        let mut found = if self.random.chance(30) {
            json!({ "name": name, "present_match": self.random.chance(70) })
        } else {
            json!({ "name": name, "string_match": self.string_match() })
        };
        if self.random.chance(25) {
            found["invert_match"] = json!(true);
        }
        if self.random.chance(20) && found.get("string_match").is_some() {
            found["treat_missing_header_as_empty"] = json!(true);
        }
        found
    }

    fn route_match(&mut self) -> Value {
        let mut found = self.path_match();
        if self.random.chance(35) {
            found["headers"] = json!([self.header_match()]);
        }
        if self.random.chance(20) {
            found["query_parameters"] = if self.random.chance(50) {
                json!([{ "name": self.random.pick(&["x", "y", "debug"]), "present_match": true }])
            } else {
                json!([{ "name": self.random.pick(&["x", "y"]), "string_match": { "exact": self.random.pick(&["1", "2", "3"]) } }])
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
        if self.random.chance(35) {
            let value = self.random.pick(&[
                "fixed",
                "%PROTOCOL%",
                "%REQ(x-one)%",
                "a%%b",
                "%REQ(x-missing?x-two)%",
                "%REQ(:PATH):3%",
            ]);
            let action = self.random.pick(&[
                "APPEND_IF_EXISTS_OR_ADD",
                "ADD_IF_ABSENT",
                "OVERWRITE_IF_EXISTS_OR_ADD",
                "OVERWRITE_IF_EXISTS",
            ]);
            let key = self.random.pick(&["x-one", "x-added", "x-backend-header"]);
            into[add] = json!([{ "header": { "key": key, "value": value }, "append_action": action }]);
        }
        if self.random.chance(15) {
            into[remove] = json!([self.random.pick(&["x-two", "x-backend-header", "x-none"])]);
        }
    }

    fn rewrite(&mut self, matched: &Value, action: &mut Value) {
        match self.random.below(5) {
            0 if matched.get("safe_regex").is_none() => {
                action["prefix_rewrite"] = json!(self.random.pick(&["/", "/new", "/new/"]))
            }
            1 => {
                action["regex_rewrite"] = json!({ "pattern": { "regex": "/([a-z]+)/?" }, "substitution": self.random.pick(&["/\\1-x/", "/y", "\\0\\0"]) })
            }
            _ => {}
        }
        match self.random.below(6) {
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
            "retry_on": self.random.pick(&["5xx", "gateway-error", "retriable-4xx", "retriable-status-codes", "connect-failure", "reset", "refused-stream"]),
            "num_retries": 1 + self.random.below(3),
            "retriable_status_codes": [503, 418],
            "retry_back_off": { "base_interval": "0.001s", "max_interval": "0.005s" },
        })
    }

    fn forward(&mut self, matched: &Value) -> Value {
        let mut action = match self.random.below(12) {
            0 => json!({ "weighted_clusters": { "clusters": [
                { "name": "routes-one", "weight": 0 }, { "name": "routes-two", "weight": 10 }] } }),
            1 => json!({ "cluster": "absent" }),
            2 => json!({ "cluster": "routes-empty" }),
            3 => json!({ "cluster": "routes-refused" }),
            4 => json!({ "cluster_header": "x-cluster" }),
            n if n < 9 => json!({ "cluster": "routes-one" }),
            _ => json!({ "cluster": "routes-two" }),
        };
        if action["cluster"] == "absent" && self.random.chance(50) {
            action["cluster_not_found_response_code"] =
                json!(self.random.pick(&["NOT_FOUND", "INTERNAL_SERVER_ERROR"]));
        }
        self.rewrite(matched, &mut action);
        if self.random.chance(40) {
            action["retry_policy"] = self.retry();
        }
        action["timeout"] = json!(self.random.pick(&["0s", "0.300s", "15s"]));
        if self.random.chance(15) {
            action["max_stream_duration"] = json!({ "max_stream_duration": "10s" });
        }
        action
    }

    fn redirect(&mut self) -> Value {
        let mut action = json!({});
        if self.random.chance(50) {
            action["host_redirect"] = json!("moved.example");
        }
        match self.random.below(4) {
            0 => action["https_redirect"] = json!(true),
            1 => action["scheme_redirect"] = json!("https"),
            _ => {}
        }
        match self.random.below(4) {
            0 => action["path_redirect"] = json!(self.random.pick(&["/there", "/there?z=1"])),
            1 => action["prefix_rewrite"] = json!("/prefix/"),
            _ => {}
        }
        if self.random.chance(30) {
            action["port_redirect"] = json!(8443);
        }
        if self.random.chance(30) {
            action["strip_query"] = json!(true);
        }
        if self.random.chance(50) {
            action["response_code"] =
                json!(self.random.pick(&["FOUND", "SEE_OTHER", "TEMPORARY_REDIRECT", "PERMANENT_REDIRECT"]));
        }
        action
    }

    fn route(&mut self) -> Value {
        let matched = self.route_match();
        self.routes += 1;
        let mut route = json!({ "name": format!("route-{}", self.routes), "match": matched });
        match self.random.below(10) {
            0 => {
                let mut direct = json!({ "status": self.random.pick(&[&200, &204, &403, &503]) });
                if self.random.chance(60) {
                    direct["body"] = json!({ "inline_string": "direct" });
                }
                route["direct_response"] = direct;
            }
            1 if route["match"].get("safe_regex").is_none() => route["redirect"] = self.redirect(),
            _ => route["route"] = self.forward(&matched),
        }
        self.header_rules(&mut route, true);
        self.header_rules(&mut route, false);
        if self.random.chance(15) {
            route["typed_per_filter_config"] =
                json!({ "envoy.filters.http.fault": fault(Some(self.random.chance(50))) });
        }
        route
    }

    fn virtual_hosts(&mut self) -> Value {
        let mut domains: Vec<&str> = DOMAINS.to_vec();
        let mut hosts = Vec::new();
        while !domains.is_empty() && hosts.len() < 4 {
            let index = self.random.below(domains.len());
            let mut mine = vec![domains.swap_remove(index)];
            if !domains.is_empty() && self.random.chance(30) {
                mine.push(domains.swap_remove(0));
            }
            let count = 1 + self.random.below(4);
            let routes: Vec<Value> = (0..count).map(|_| self.route()).collect();
            let mut host = json!({ "name": format!("host-{}", hosts.len()), "domains": mine, "routes": routes });
            if self.random.chance(10) {
                host["require_tls"] = json!("ALL");
            }
            self.header_rules(&mut host, true);
            self.header_rules(&mut host, false);
            hosts.push(host);
        }
        Value::Array(hosts)
    }

    fn settings(&mut self) -> Value {
        let mut settings = json!({
            "normalize_path": self.random.chance(60),
            "merge_slashes": self.random.chance(30),
            "use_remote_address": self.random.chance(30),
        });
        if self.random.chance(40) {
            settings["server_name"] = json!("istio-envoy");
            settings["server_header_transformation"] =
                json!(self.random.pick(&["OVERWRITE", "APPEND_IF_ABSENT", "PASS_THROUGH"]));
        }
        if self.random.chance(20) {
            settings["strip_matching_host_port"] = json!(true);
        }
        settings
    }

    fn request(&mut self) -> String {
        let method = self.random.pick(METHODS);
        let path = self.random.pick(PATHS);
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nx-test-id: @ID@\r\n", self.host());
        for name in ["x-one", "x-two"] {
            if self.random.chance(50) {
                request += &format!("{name}: {}\r\n", self.random.pick(&["one", "two", "Two", "none"]));
            }
        }
        if self.random.chance(30) {
            let cluster = self.random.pick(&["routes-one", "routes-two", "nowhere"]);
            request += &format!("x-cluster: {cluster}\r\n");
        }
        let mut wanted = Vec::new();
        if self.random.chance(15) {
            wanted.push(format!("fail={}", 1 + self.random.below(3)));
        } else if self.random.chance(10) {
            wanted.push(format!("status={}", self.random.pick(&["404", "409", "418", "500", "502"])));
        } else if self.random.chance(10) && !matches!(method, "POST" | "PUT") {
            // How much of a body was read by then is a matter of time.
            wanted.push(format!("reset-first={}", 1 + self.random.below(3)));
        }
        if self.random.chance(5) {
            wanted.push("delay=600".to_owned());
        }
        if !wanted.is_empty() {
            request += &format!("x-want: {}\r\n", wanted.join(","));
        }
        match self.random.below(4) {
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
        let host = self.random.pick(HOSTS).to_owned();
        if self.random.chance(15) { format!("{host}:8080") } else { host }
    }
}

pub fn add(plan: &mut Plan<'_>, random: &mut Random) {
    let mut generator = Generator { random, routes: 0 };
    let hosts = generator.virtual_hosts();
    let settings = generator.settings();
    let manager = manager::manager(hosts, manager::filters(vec![("fault", fault(None))]), settings);
    let listener = plan.listener(manager::listener(manager));
    let backends = &plan.setup.backends;
    let clusters = [
        cluster("routes-one", &[backends.plain[0]], json!({})),
        cluster("routes-two", &[backends.plain[1]], json!({})),
        cluster("routes-empty", &[], json!({})),
        cluster("routes-refused", &[backends.refused], json!({})),
    ];
    clusters.into_iter().for_each(|cluster| plan.cluster(cluster));
    for _ in 0..PROBES {
        let action = Action::Http1 { bytes: generator.request(), answers: 1 };
        plan.probe(Probe::new("routes", listener, Ipv4Addr::LOCALHOST, action), 0);
    }
}
