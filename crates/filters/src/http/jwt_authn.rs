//! `envoy.filters.http.jwt_authn`: requests bring the tokens that their rule asks for, or are refused.
//!
//! Every token that a provider finds in a request must be good, so that nobody behind us takes the bad one of two. A request
//! waits only where keys are still being fetched.

mod cache;
mod extract;
mod outcome;
mod provider;
mod remote;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ::http::{HeaderValue, header};
use meltemi_http::{Method, RequestHead, StatusCode, name};
use meltemi_plan::FilterOverride;
use meltemi_plan::jwt::{JwtAuthn as Config, JwtPerRoute, Leniency, Requirement};
use meltemi_plan::{RouteRequest, jwt};
use meltemi_telemetry::{Spec, stats};

use crate::chain::{ChainScope, dotted};
use crate::context::Context;
use crate::info::StreamInfo;
use crate::jwt::{Status, Token};
use crate::lookup::RequestFields;
use crate::reply::{Flow, LocalReply};
use extract::{Extractor, Found};
use outcome::Outcome;
use provider::Provider;
pub use remote::KeyFetcher;
pub(crate) use remote::KeyStore;

stats! {
    pub(crate) struct JwtStats {
        allowed: Spec::counter("allowed"),
        cors_preflight_bypassed: Spec::counter("cors_preflight_bypassed"),
        denied: Spec::counter("denied"),
        jwks_fetch_success: Spec::counter("jwks_fetch_success"),
        jwks_fetch_failed: Spec::counter("jwks_fetch_failed"),
        jwt_cache_hit: Spec::counter("jwt_cache_hit"),
        jwt_cache_miss: Spec::counter("jwt_cache_miss"),
    }
}

/// Where what tokens say is found in dynamic metadata.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";
/// Bytes of a path in `www-authenticate`.
const MOST_PATH: usize = 256;

pub(crate) struct JwtAuthn {
    config: Arc<Config>,
    providers: Vec<Provider>,
    /// Of all providers at once.
    everywhere: Extractor,
    stats: Arc<JwtStats>,
}

/// Verification under way, boxed because requirements hold requirements.
type Verifying<'a> = Pin<Box<dyn Future<Output = Result<(), Status>> + 'a>>;

/// Whose tokens are looked for, and what is overlooked.
struct Look<'a> {
    /// `None`: whichever issued the token.
    provider: Option<usize>,
    audiences: &'a [Arc<str>],
    leniency: Leniency,
}

impl JwtAuthn {
    pub fn new(config: Arc<Config>, scope: &ChainScope, context: &Context) -> Self {
        let metrics = scope.metrics(("jwt_authn.", "envoy_http_jwt_authn_"), &dotted(&config.stat_prefix));
        let stats = Arc::new(JwtStats::new(&context.registry, metrics));
        let providers = config.providers.iter().map(|plan| Provider::new(plan.clone(), &stats, context)).collect();
        let everywhere = Extractor::new(config.providers.iter().map(|provider| &**provider));
        Self { config, providers, everywhere, stats }
    }

    pub async fn on_request(&self, name: &str, head: &mut RequestHead, info: &mut StreamInfo) -> Flow {
        self.everywhere.sanitize(head);
        if self.config.bypass_cors_preflight && is_preflight(head) {
            self.stats.cors_preflight_bypassed().inc();
            self.stats.allowed().inc();
            return Flow::Continue;
        }
        let config = self.config.clone();
        let requirement = match info.filter_override(name) {
            Some(FilterOverride::JwtAuthn(JwtPerRoute::Disabled)) => None,
            Some(FilterOverride::JwtAuthn(JwtPerRoute::Named(wanted))) => match config.named.get(wanted) {
                Some(requirement) => Some(requirement),
                None => return self.refuse_route(wanted),
            },
            _ => requirement(&config, head, info),
        };
        let Some(requirement) = requirement else {
            self.stats.allowed().inc();
            return Flow::Continue;
        };
        let uri = original_uri(head);
        let mut outcome = Outcome::default();
        let verified = self.verify(requirement, head, &mut outcome).await;
        if !outcome.metadata.is_empty() {
            info.find_out(NAMESPACE, outcome.metadata);
        }
        match verified {
            Ok(()) => {
                self.stats.allowed().inc();
                if outcome.reroute { Flow::Reroute } else { Flow::Continue }
            }
            Err(status) => {
                // Envoy has chosen another route by then, whatever came after the token that led there.
                let mut reply = self.refusal(status, &uri);
                reply.reroute = outcome.reroute;
                reply.into()
            }
        }
    }

    fn verify<'a>(
        &'a self,
        requirement: &'a Requirement,
        head: &'a mut RequestHead,
        outcome: &'a mut Outcome,
    ) -> Verifying<'a> {
        Box::pin(async move {
            match requirement {
                Requirement::Nothing => Ok(()),
                Requirement::Provider { provider, audiences } => {
                    let look = Look { provider: Some(*provider), audiences, leniency: Leniency::None };
                    self.authenticate(look, head, outcome).await
                }
                Requirement::Lenient(leniency) => {
                    let look = Look { provider: None, audiences: &[], leniency: *leniency };
                    self.authenticate(look, head, outcome).await
                }
                Requirement::All(all) => {
                    for one in all {
                        self.verify(one, head, outcome).await?;
                    }
                    Ok(())
                }
                Requirement::Any { of, leniency } => {
                    let mut failed = Status::Missing;
                    for one in of {
                        match self.verify(one, head, outcome).await {
                            Ok(()) => return Ok(()),
                            Err(status) => failed = more_telling(failed, status),
                        }
                    }
                    overlook(*leniency, Err(failed))
                }
            }
        })
    }

    /// Verifies all tokens that stand where they are looked for, the last first.
    async fn authenticate(&self, look: Look<'_>, head: &mut RequestHead, outcome: &mut Outcome) -> Result<(), Status> {
        let extractor = look.provider.map_or(&self.everywhere, |at| &self.providers[at].extractor);
        extractor.sanitize(head);
        let mut tokens = extractor.extract(head);
        if tokens.is_empty() {
            outcome.failed(Status::Missing, self.only());
            return overlook(look.leniency, Err(Status::Missing));
        }
        let mut last = Ok(());
        // Whose failure it is: a token that nobody issued is put down to the issuer of the one before.
        let mut blamed = look.provider.map(|at| &self.providers[at]);
        while let Some(found) = tokens.pop() {
            last = self.accept(&found, &look, &mut blamed, head, outcome).await;
            if let Err(status) = last {
                outcome.failed(status, blamed.map(|provider| &*provider.plan).or(self.only()));
                if look.leniency == Leniency::None {
                    break;
                }
            }
        }
        overlook(look.leniency, last)
    }

    /// Verifies one token and does with the request what its provider says.
    async fn accept<'s>(
        &'s self,
        found: &Found,
        look: &Look<'_>,
        blamed: &mut Option<&'s Provider>,
        head: &mut RequestHead,
        outcome: &mut Outcome,
    ) -> Result<(), Status> {
        let provider = look.provider.map(|at| &self.providers[at]);
        let known = provider.and_then(|provider| provider.known(&found.token));
        let token = match &known {
            Some(token) => token.clone(),
            None => Arc::new(Token::parse(&found.token)?),
        };
        if !found.admits(&token.issuer) {
            return Err(Status::UnknownIssuer);
        }
        let owner = provider.or_else(|| self.of_issuer(&token.issuer)).ok_or(Status::UnknownIssuer)?;
        *blamed = Some(owner);
        owner.check(&token, look.audiences, now())?;
        if known.is_none() {
            owner.verify(&token).await?;
        }
        outcome.accepted(&owner.plan, &token, found, head);
        if known.is_none() && look.provider.is_some() {
            owner.remember(token);
        }
        Ok(())
    }

    /// The first provider of the issuer, else the first of any.
    fn of_issuer(&self, issuer: &str) -> Option<&Provider> {
        let of = |issuer: &str| self.providers.iter().find(|provider| &*provider.plan.issuer == issuer);
        of(issuer).or_else(|| of(""))
    }

    /// Whose failure it is where no token says so: that of the only provider, if there is one.
    fn only(&self) -> Option<&jwt::JwtProvider> {
        match &self.providers[..] {
            [only] => Some(&only.plan),
            _ => None,
        }
    }

    fn refusal(&self, status: Status, uri: &str) -> LocalReply {
        self.stats.denied().inc();
        let code = if status == Status::AudienceNotAllowed { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
        if self.config.strip_failure_response {
            return LocalReply::new(code, "", details(status.text()));
        }
        let mut reply = LocalReply::new(code, status.text(), details(status.text()));
        let error = if status == Status::Missing { "" } else { ", error=\"invalid_token\"" };
        if let Ok(value) = HeaderValue::from_str(&format!("Bearer realm=\"{uri}\"{error}")) {
            reply.headers.insert(header::WWW_AUTHENTICATE, value);
        }
        reply
    }

    fn refuse_route(&self, wanted: &str) -> Flow {
        self.stats.denied().inc();
        let names: Vec<&str> = self.config.named.keys().map(|name| &**name).collect();
        let error = format!("Wrong requirement_name: {wanted}. It should be one of [{}]", names.join(","));
        let details = details(&error);
        let body = if self.config.strip_failure_response {
            String::new()
        } else {
            format!("Failed JWT authentication: {error}")
        };
        LocalReply::new(StatusCode::FORBIDDEN, body, details).into()
    }
}

fn requirement<'a>(config: &'a Config, head: &RequestHead, info: &StreamInfo) -> Option<&'a Requirement> {
    let request = RouteRequest {
        host: &head.authority,
        path: &head.path,
        headers: &RequestFields(head),
        random: 0,
        is_connect: head.method == Method::CONNECT && head.upgrade.is_none(),
        tls_presented: false,
        tls_validated: false,
        metadata: info.metadata.as_deref(),
    };
    config.requirement(&request)
}

/// Of several failures the one that says most: there was a token, of this issuer, and it was not good.
fn more_telling(before: Status, status: Status) -> Status {
    let says_little = matches!(status, Status::Missing | Status::UnknownIssuer);
    if !says_little || before == Status::Missing { status } else { before }
}

fn overlook(leniency: Leniency, result: Result<(), Status>) -> Result<(), Status> {
    match (leniency, result) {
        (Leniency::MissingOrFailed, _) | (Leniency::Missing, Err(Status::Missing)) => Ok(()),
        (_, result) => result,
    }
}

fn details(error: &str) -> String {
    let clean: String = error.chars().map(|c| if c.is_ascii_whitespace() { '_' } else { c }).collect();
    format!("jwt_authn_access_denied{{{clean}}}")
}

fn is_preflight(head: &RequestHead) -> bool {
    let has = |name| head.headers.get(&name).is_some_and(|value: &HeaderValue| !value.is_empty());
    head.method == Method::OPTIONS && has(header::ORIGIN) && has(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// What the client asked for, as far as it fits.
fn original_uri(head: &RequestHead) -> String {
    let path = head.headers.get_str(&name::X_ENVOY_ORIGINAL_PATH).unwrap_or(&head.path);
    let path = &path[..path.floor_char_boundary(MOST_PATH)];
    let scheme = head.headers.get_str(&name::X_FORWARDED_PROTO).unwrap_or_default();
    format!("{scheme}://{}{path}", head.authority)
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
