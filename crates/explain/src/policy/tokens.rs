//! What RequestAuthentications say of a token with these claims.

use meltemi_filters::StreamInfo;
use meltemi_plan::jwt::{JwtAuthn, JwtProvider, Leniency, Requirement};
use meltemi_translate::TOKENS;
use serde_json::{Map, Value};

use super::{Answer, Decision, FORBIDDEN, PolicyOf};
use crate::request::Request;
use crate::walk::route_request;

const UNAUTHORIZED: u16 = 401;

/// Judges the request's token, and has what is behind the filter find its claims.
pub(super) fn judge(filter: &JwtAuthn, request: &Request, info: &mut StreamInfo, policy_of: PolicyOf<'_>) -> Decision {
    let refused = |status, why: String| Decision { why, ..Decision::new("tokens", Answer::Refused(Some(status))) };
    if request.claims.is_empty() {
        let demanded = filter.requirement(&route_request(request)).is_some_and(demands);
        if demanded {
            return refused(UNAUTHORIZED, "there is none, and one is demanded".to_owned());
        }
        let why = "there is none, and none is demanded".to_owned();
        return Decision { why, ..Decision::new("tokens", Answer::Passed) };
    }
    let issuer = request.claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    let Some(provider) = provider(filter, issuer) else {
        return refused(UNAUTHORIZED, format!("none of issuer {issuer:?} are taken"));
    };
    let rule = policy_of(issuer);
    if !is_for(provider, &request.claims) {
        let audiences: Vec<&str> = provider.audiences.iter().map(|audience| &**audience).collect();
        let why = format!("it is for none of {}", audiences.join(", "));
        return Decision { rule: None, ..refused(FORBIDDEN, why) };
    }
    if let Some(key) = &provider.payload_in_metadata {
        let payload = normalised(&request.claims, provider);
        info.find_out(TOKENS, [(key.to_string(), Value::Object(payload))].into_iter().collect());
    }
    let why = format!("those of issuer {issuer:?} are taken");
    Decision { rule, why, ..Decision::new("tokens", Answer::Passed) }
}

fn provider<'a>(filter: &'a JwtAuthn, issuer: &str) -> Option<&'a JwtProvider> {
    let mut providers = filter.providers.iter().map(|provider| &**provider);
    providers.find(|provider| provider.issuer.is_empty() || *provider.issuer == *issuer)
}

/// Whether one that is missing is refused.
fn demands(requirement: &Requirement) -> bool {
    match requirement {
        Requirement::Provider { .. } => true,
        Requirement::Any { of, leniency } => *leniency == Leniency::None && of.iter().all(demands),
        Requirement::All(of) => of.iter().any(demands),
        Requirement::Lenient(leniency) => *leniency == Leniency::None,
        Requirement::Nothing => false,
    }
}

fn is_for(provider: &JwtProvider, claims: &Map<String, Value>) -> bool {
    let named: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    provider.audiences.is_empty() || provider.audiences.iter().any(|audience| named.contains(&&**audience))
}

/// Claims of words with spaces between them become lists.
fn normalised(claims: &Map<String, Value>, provider: &JwtProvider) -> Map<String, Value> {
    let mut claims = claims.clone();
    for name in &provider.space_delimited_claims {
        if let Some(claim @ Value::String(_)) = claims.get_mut(&**name) {
            let words = claim.as_str().unwrap_or_default().split_whitespace().map(Value::from).collect();
            *claim = Value::Array(words);
        }
    }
    claims
}

/// Whether a token stays in the request behind this filter.
pub(super) fn stays(filter: &JwtAuthn, request: &Request) -> bool {
    let issuer = request.claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    provider(filter, issuer).is_none_or(|provider| provider.forward)
}
