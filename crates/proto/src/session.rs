//! What Envoy's cookies of stateful sessions hold: `envoy.Cookie` of
//! `source/extensions/http/stateful_session/cookie/cookie.proto`, which is not part of its API.

#[derive(Clone, PartialEq, Eq, ::prost::Message)]
pub struct SessionCookie {
    /// `ip:port` of the host.
    #[prost(string, tag = "1")]
    pub address: String,
    /// Seconds; 0: never.
    #[prost(uint64, tag = "2")]
    pub expires: u64,
}

impl prost::Name for SessionCookie {
    const NAME: &'static str = "Cookie";
    const PACKAGE: &'static str = "envoy";
}
