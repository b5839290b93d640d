//! Tokens: providers with keys of every type, here and fetched, and what becomes of requests with good and bad tokens.

use super::client::{Action, Probe};
use super::random::Random;
use super::{Plan, cluster, manager, merge};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA384,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PROBES: usize = 60;
/// Of requirements within requirements.
const MOST_DEPTH: usize = 2;
const KIND: &str = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3";

/// Who issues tokens: keys of several types in one set.
pub struct Issuer {
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
    ed25519: Ed25519KeyPair,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

const SECRET: &[u8] = b"thirty-two bytes or more of secret";

impl Issuer {
    pub fn new() -> Self {
        Self {
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
            ed25519: Ed25519KeyPair::generate().expect("a key"),
        }
    }

    pub fn keys(&self) -> String {
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
        // A sequence of two integers, of which the first has 2048 bits.
        let modulus = &self.rsa.public_key().as_ref()[9..265];
        json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "ec", "x": encode(x), "y": encode(y) },
            { "kty": "RSA", "kid": "rsa", "n": encode(modulus), "e": "AQAB" },
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encode(self.ed25519.public_key()) },
            { "kty": "oct", "kid": "secret", "k": encode(SECRET) },
            { "kty": "unknown", "kid": "later" },
        ] })
        .to_string()
    }

    fn sign(&self, header: &Value, payload: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(payload.to_string()));
        let random = SystemRandom::new();
        let rsa = |padding: &'static dyn aws_lc_rs::signature::RsaEncoding| {
            let mut out = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(padding, &random, signed.as_bytes(), &mut out).expect("signed");
            out
        };
        let signature = match header["alg"].as_str() {
            Some("ES256") => self.ec.sign(&random, signed.as_bytes()).expect("signed").as_ref().to_vec(),
            Some("RS256") => rsa(&RSA_PKCS1_SHA256),
            Some("PS384") => rsa(&RSA_PSS_SHA384),
            Some("EdDSA") => self.ed25519.sign(signed.as_bytes()).as_ref().to_vec(),
            _ => {
                let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET);
                aws_lc_rs::hmac::sign(&key, signed.as_bytes()).as_ref().to_vec()
            }
        };
        format!("{signed}.{}", encode(signature))
    }
}

fn provider(random: &mut Random, issuer: &str, keys: Value) -> Value {
    let mut provider = keys;
    if !issuer.is_empty() {
        provider["issuer"] = json!(issuer);
    }
    let mut maybe = |percent: usize, more: Value| {
        if random.chance(percent) {
            merge(&mut provider, more);
        }
    };
    maybe(30, json!({ "audiences": ["one", "https://two.example/"] }));
    maybe(50, json!({ "forward": true }));
    maybe(40, json!({ "forward_payload_header": "x-payload" }));
    maybe(50, json!({ "pad_forward_payload_header": true }));
    maybe(60, json!({ "payload_in_metadata": "payload" }));
    maybe(30, json!({ "header_in_metadata": "header" }));
    maybe(30, json!({ "normalize_payload_in_metadata": { "space_delimited_claims": ["scope", "absent"] } }));
    maybe(40, json!({ "failed_status_in_metadata": "failed" }));
    maybe(20, json!({ "require_expiration": true }));
    maybe(20, json!({ "max_lifetime": "1800s" }));
    maybe(20, json!({ "subjects": { "prefix": "sub" } }));
    maybe(20, json!({ "clock_skew_seconds": 5 }));
    maybe(30, json!({ "jwt_cache_config": { "jwt_cache_size": 3 } }));
    maybe(
        30,
        json!({ "from_headers": [{ "name": "x-token" }, { "name": "authorization", "value_prefix": "Bearer " }] }),
    );
    maybe(20, json!({ "from_params": ["token"] }));
    maybe(20, json!({ "from_cookies": ["token"] }));
    maybe(
        40,
        json!({ "claim_to_headers": [
        { "header_name": "x-claim-sub", "claim_name": "sub" }, { "header_name": "x-claim-deep", "claim_name": "deep.er" },
        { "header_name": "x-claim-list", "claim_name": "list" }, { "header_name": "x-claim-true", "claim_name": "true" }] }),
    );
    maybe(50, json!({ "clear_route_cache": true }));
    provider
}

fn remote(random: &mut Random, cluster: &str) -> Value {
    let mut remote =
        json!({ "http_uri": { "uri": "https://issuer.example/keys", "cluster": cluster, "timeout": "2s" } });
    if random.chance(30) {
        remote["async_fetch"] = json!({ "fast_listener": random.chance(50) });
    }
    json!({ "remote_jwks": remote })
}

/// Those of several are of providers whose keys are here: Envoy goes on with the others while it waits for keys.
fn requirement(random: &mut Random, depth: usize) -> Value {
    let near = ["one", "two", "any"];
    let all = ["one", "two", "any", "far", "gone"];
    let of: &[&str] = if depth == MOST_DEPTH { &all } else { &near };
    let provider = |random: &mut Random| random.pick(of).to_owned();
    match random.below(if depth == MOST_DEPTH { 10 } else { 4 + 4 * depth }) {
        0..=2 => json!({ "provider_name": provider(random) }),
        3 => json!({ "provider_and_audiences": { "provider_name": provider(random), "audiences": ["three", "one"] } }),
        8 => json!({ "allow_missing": {} }),
        9 => json!({ "allow_missing_or_failed": {} }),
        4..=6 => {
            let lenient = json!({ random.pick(&["allow_missing", "allow_missing_or_failed"]): {} });
            let second = if random.chance(50) { lenient } else { requirement(random, depth - 1) };
            json!({ "requires_any": { "requirements": [requirement(random, depth - 1), second] } })
        }
        _ => {
            json!({ "requires_all": { "requirements": [requirement(random, depth - 1), requirement(random, depth - 1)] } })
        }
    }
}

fn authentication(random: &mut Random, issuer: &Issuer) -> Value {
    let local = json!({ "local_jwks": { "inline_string": issuer.keys() } });
    let far = remote(random, "tokens-keys");
    let gone = remote(random, "tokens-refused");
    let match_b =
        if random.chance(50) { json!({ "path": "/b" }) } else { json!({ "prefix": "/b", "case_sensitive": false }) };
    let mut config = json!({
        "@type": format!("{KIND}.JwtAuthentication"),
        "providers": {
            "any": provider(random, "", local.clone()),
            "far": provider(random, "far.example", far),
            "gone": provider(random, "gone.example", gone),
            "one": provider(random, "one.example", local.clone()),
            "two": provider(random, "two.example", local),
        },
        "requirement_map": { "named": requirement(random, MOST_DEPTH) },
        "rules": [
            { "match": { "prefix": "/free" } },
            { "match": match_b, "requires": requirement(random, MOST_DEPTH) },
            { "match": { "prefix": "/c", "headers": [{ "name": "x-one", "string_match": { "exact": "one" } }] }, "requirement_name": "named" },
            { "match": { "prefix": "/" }, "requires": requirement(random, MOST_DEPTH) },
        ],
    });
    for (field, percent) in [("bypass_cors_preflight", 40), ("strip_failure_response", 20)] {
        if random.chance(percent) {
            config[field] = json!(true);
        }
    }
    config
}

fn per_route(random: &mut Random) -> Value {
    let own = match random.below(3) {
        0 => json!({ "disabled": true }),
        1 => json!({ "requirement_name": "named" }),
        _ => json!({ "requirement_name": "absent" }),
    };
    let mut own = own;
    own["@type"] = json!(format!("{KIND}.PerRouteConfig"));
    json!({ "envoy.filters.http.jwt_authn": own })
}

/// A token, good or bad in one way. `single`: its request has no other, so that it may be of an issuer who is gone.
fn token(random: &mut Random, single: bool, issuer: &Issuer) -> String {
    let issuers: &[&str] = &["one.example", "one.example", "two.example", "far.example", "gone.example"];
    let issuers = if single { issuers } else { &issuers[..4] };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (algorithm, id) =
        [("ES256", "ec"), ("RS256", "rsa"), ("PS384", "rsa"), ("EdDSA", "ed"), ("HS256", "secret")][random.below(5)];
    let mut header = json!({ "alg": algorithm, "kid": id });
    let mut payload = json!({ "iss": random.pick(issuers),
        "sub": random.pick(&["subject", "other"]), "aud": "one", "exp": now + 600, "scope": "read  write",
        "deep": { "er": 7 }, "list": ["a"], "true": true });
    match random.below(20) {
        0 => payload["exp"] = json!(now - 3600),
        1 => payload["nbf"] = json!(now + 3600),
        2 => payload["aud"] = json!(["two.example", "four"]),
        3 => payload["aud"] = json!("four"),
        4 => payload["iss"] = json!("unknown.example"),
        5 => payload["exp"] = json!(now + 7200),
        6 => drop(payload.as_object_mut().expect("an object").remove("exp")),
        7 => drop(payload.as_object_mut().expect("an object").remove("iss")),
        8 => header["kid"] = json!("unknown"),
        9 if algorithm != "EdDSA" && algorithm != "HS256" => {
            drop(header.as_object_mut().expect("an object").remove("kid"))
        }
        10 => payload["iat"] = json!("yesterday"),
        11 => payload["sub"] = json!(["list"]),
        12 => return ["nonsense", "a.b.c", "e30.e30.AA", "!!.??.AA"][random.below(4)].to_owned(),
        13 => {
            let mut text = issuer.sign(&header, &payload);
            text.truncate(text.len() - 8);
            return text + "AAAAAAAA";
        }
        _ => {}
    }
    issuer.sign(&header, &payload)
}

fn request(random: &mut Random, single: bool, issuer: &Issuer) -> String {
    let method = random.pick(&["GET", "GET", "GET", "OPTIONS", "HEAD"]);
    let mut path = random.pick(&["/a", "/b", "/c", "/d", "/free"]).to_owned();
    let mut lines = String::new();
    for _ in 0..random.below(if single { 2 } else { 3 }) {
        let token = token(random, single, issuer);
        match random.below(5) {
            // Envoy makes one field of two.
            0 | 1 if !lines.contains("authorization:") => lines += &format!("authorization: Bearer {token}\r\n"),
            0..=2 => lines += &format!("x-token: {token}\r\n"),
            3 => lines += &format!("cookie: a=b; token={token}\r\n"),
            _ if path.contains('?') => {}
            _ => path += &format!("?{}={token}", random.pick(&["token", "access_token"])),
        }
    }
    for line in [
        "x-one: one",
        "origin: http://a",
        "access-control-request-method: GET",
        "x-payload: forged",
        "content-type: application/grpc",
    ] {
        if random.chance(25) {
            lines += &format!("{line}\r\n");
        }
    }
    format!("{method} {path} HTTP/1.1\r\nhost: tokens.example\r\nx-test-id: @ID@\r\n{lines}\r\n")
}

pub fn add(plan: &mut Plan<'_>, random: &mut Random) {
    let issuer = &plan.setup.issuer;
    let claim = |key: &str, value: &str| {
        json!({ "filter": "envoy.filters.http.jwt_authn", "path": [{ "key": "payload" }, { "key": key }],
            "value": { "string_match": { "exact": value } } })
    };
    let mut routes = vec![
        json!({ "name": "by-claim", "match": { "prefix": "/", "dynamic_metadata": [claim("sub", "other")] }, "route": { "cluster": "tokens-two" } }),
        json!({ "name": "by-header", "match": { "prefix": "/", "headers": [{ "name": "x-claim-sub", "present_match": true }] }, "route": { "cluster": "tokens-one" } }),
    ];
    let mut d = json!({ "name": "d", "match": { "prefix": "/d" }, "route": { "cluster": "tokens-one" } });
    if random.chance(60) {
        d["typed_per_filter_config"] = per_route(random);
    }
    routes.push(d);
    routes.push(json!({ "name": "rest", "match": { "prefix": "/" }, "route": { "cluster": "tokens-one" } }));
    let single = random.chance(50);
    let mut filters = vec![("jwt_authn", authentication(random, issuer))];
    if random.chance(40) {
        let list = json!({ "filter": "envoy.filters.http.jwt_authn", "path": [{ "key": "payload" }, { "key": "list" }],
            "value": { "list_match": { "one_of": { "string_match": { "exact": "a" } } } } });
        filters.push((
            "rbac",
            json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": { "action": random.pick(&["ALLOW", "DENY"]), "policies": { "ns[a]-policy[b]-rule[0]": {
                "permissions": [{ "any": true }], "principals": [{ "and_ids": { "ids": [
                    { "metadata": claim("sub", "subject") }, { "not_id": { "metadata": list } }] } }] } } } }),
        ));
    }
    let hosts = json!([{ "name": "all", "domains": ["*"], "routes": routes }]);
    let manager = manager::manager(hosts, manager::filters(filters), json!({}));
    let listener = plan.listener(manager::listener(manager));
    let requests: Vec<String> = (0..PROBES).map(|_| request(random, single, issuer)).collect();
    let (backends, services) = (&plan.setup.backends, &plan.setup.services);
    let addresses: [(&str, SocketAddr); 4] = [
        ("tokens-one", backends.plain[0]),
        ("tokens-two", backends.plain[1]),
        ("tokens-keys", services.http),
        ("tokens-refused", backends.refused),
    ];
    for (name, address) in addresses {
        plan.cluster(cluster(name, &[address], json!({})));
    }
    for bytes in requests {
        plan.probe(Probe::new("tokens", listener, Ipv4Addr::LOCALHOST, Action::Http1 { bytes, answers: 1 }), 0);
    }
}
