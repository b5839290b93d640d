//! The framing rules: every way in which a message is refused, with its source and Envoy's answer.

use std::fmt;

use http::StatusCode;

/// A rule's source and consequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Section of RFC 9112, or of RFC 9110 where so marked.
    pub section: &'static str,
    /// What a client that broke it is told.
    pub status: StatusCode,
    /// Envoy's response code details.
    pub details: &'static str,
    pub text: &'static str,
}

macro_rules! rules {
    ($($name:ident: $section:literal, $status:ident, $details:literal, $text:literal;)*) => {
        /// A framing rule that a peer broke.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Violation {
            $(#[doc = concat!($text, " (", $section, ").")] $name,)*
        }

        impl Violation {
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            pub const fn rule(self) -> Rule {
                match self {
                    $(Self::$name => Rule {
                        section: $section, status: StatusCode::$status, details: $details, text: $text,
                    },)*
                }
            }
        }
    };
}

rules! {
    BareLf: "2.2", BAD_REQUEST, "http1.codec_error", "a line ends in LF without CR";
    StartLine: "3", BAD_REQUEST, "http1.codec_error", "malformed start line";
    Method: "3.1", BAD_REQUEST, "http1.codec_error", "unknown method";
    Target: "3.2", BAD_REQUEST, "http1.invalid_url", "request target of the wrong form or with a forbidden byte";
    Version: "2.3", BAD_REQUEST, "http1.codec_error", "not HTTP/1.0 or HTTP/1.1";
    Field: "5", BAD_REQUEST, "http1.codec_error", "malformed field line (name, space before colon or folding)";
    FieldValue: "5.5", BAD_REQUEST, "http1.invalid_characters", "control byte in a field value";
    HeadTooLarge: "5", REQUEST_HEADER_FIELDS_TOO_LARGE, "http1.headers_too_large", "head over the size limit";
    TooManyFields: "5", REQUEST_HEADER_FIELDS_TOO_LARGE, "http1.too_many_headers", "more fields than the limit";
    HostMissing: "3.2", BAD_REQUEST, "missing_host_header", "HTTP/1.1 without Host";
    HostRepeated: "3.2", BAD_REQUEST, "http1.codec_error", "more than one Host";
    HostInvalid: "3.2", BAD_REQUEST, "http.invalid_authority", "Host is not an authority";
    LengthInvalid: "6.3", BAD_REQUEST, "http1.codec_error", "Content-Length is not one plain number";
    LengthRepeated: "6.3", BAD_REQUEST, "http1.codec_error", "more than one Content-Length";
    LengthAndEncoding: "6.1", BAD_REQUEST, "http1.content_length_and_chunked_not_allowed", "both Content-Length and Transfer-Encoding";
    EncodingUnknown: "6.1", NOT_IMPLEMENTED, "http1.invalid_transfer_encoding", "Transfer-Encoding is not exactly chunked";
    EncodingRepeated: "6.1", BAD_REQUEST, "http1.invalid_transfer_encoding", "more than one Transfer-Encoding";
    EncodingInHttp10: "6.1", BAD_REQUEST, "http1.transfer_encoding_not_allowed", "Transfer-Encoding in HTTP/1.0";
    EncodingNotAllowed: "6.1", BAD_REQUEST, "http1.transfer_encoding_not_allowed", "Transfer-Encoding in a 1xx, 204 or CONNECT message";
    LengthNotAllowed: "9110 8.6", BAD_REQUEST, "http1.content_length_not_allowed", "Content-Length over zero in a CONNECT request, or in a 1xx or 204 response";
    ConnectionRejected: "9110 7.6.1", BAD_REQUEST, "http1.connection_header_rejected", "Connection names a field that must not be dropped";
    ChunkSize: "7.1", BAD_REQUEST, "http1.codec_error", "chunk size is not plain hexadecimal or too large";
    ChunkExtension: "7.1.1", BAD_REQUEST, "http1.codec_error", "chunk extension malformed or too long";
    ChunkEnd: "7.1", BAD_REQUEST, "http1.codec_error", "chunk data not followed by CRLF";
    TrailersTooLarge: "7.1.2", REQUEST_HEADER_FIELDS_TOO_LARGE, "http1.trailers_too_large", "trailers over the size limit";
    UpgradeNotAsked: "9110 7.8", BAD_REQUEST, "http1.codec_error", "101 without a request to upgrade";
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.rule();
        write!(f, "{} (RFC 9112 {})", rule.text, rule.section)
    }
}
