//! Application protocols and how a port declares one.

use std::fmt;

/// What travels over a port, as Istio names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    Https,
    Tls,
    Tcp,
    Udp,
    Mongo,
    Redis,
    MySql,
    Hbone,
    /// Not declared, or declared as something unknown: the proxy sniffs.
    Auto,
}

impl Protocol {
    /// A protocol's own name, any case; what is unknown is [`Protocol::Auto`].
    pub fn parse(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::MySql,
            "hbone" => Self::Hbone,
            _ => Self::Auto,
        }
    }

    /// The protocol of a Kubernetes Service port: UDP by transport, then `appProtocol`, then the port's name
    /// (`<protocol>[-suffix]`), then the well-known ports that are never sniffed because the server speaks first.
    pub fn of_service_port(name: &str, port: u32, transport: &str, app_protocol: Option<&str>) -> Self {
        if transport.eq_ignore_ascii_case("UDP") {
            return Self::Udp;
        }
        let named = match app_protocol.filter(|text| !text.is_empty()) {
            Some("kubernetes.io/h2c") => return Self::Http2,
            // Websockets start as HTTP/1.1 upgrades.
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Https,
            Some(text) => text,
            None => name,
        };
        match Self::of_name(named) {
            Self::Auto => Self::of_well_known(port),
            protocol => protocol,
        }
    }

    fn of_name(name: &str) -> Self {
        let whole = Self::parse(name);
        if whole != Self::Auto {
            return whole;
        }
        // `grpc-web` has a dash of its own.
        if name.len() > 9 && name.as_bytes()[..9].eq_ignore_ascii_case(b"grpc-web-") {
            return Self::GrpcWeb;
        }
        match name.split_once('-') {
            // A declared UDP port on TCP transport says nothing of use.
            Some((prefix, _)) => Self::parse(prefix),
            None => Self::Auto,
        }
    }

    fn of_well_known(port: u32) -> Self {
        match port {
            // SMTP, DNS, MySQL and MongoDB: server first or not recognisable, so sniffing would only add a delay.
            25 | 53 => Self::Tcp,
            3306 => Self::MySql,
            27017 => Self::Mongo,
            _ => Self::Auto,
        }
    }

    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Https | Self::Tls | Self::Mongo | Self::Redis | Self::MySql)
    }

    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// The proxy has to look at the first bytes.
    pub fn is_sniffed(self) -> bool {
        self == Self::Auto
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-Web",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Mongo => "Mongo",
            Self::Redis => "Redis",
            Self::MySql => "MySQL",
            Self::Hbone => "HBONE",
            Self::Auto => "UnsupportedProtocol",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
