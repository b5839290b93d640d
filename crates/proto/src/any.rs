//! `google.protobuf.Any` with bytes that are shared, and the type URLs of messages.

use bytes::Bytes;
use prost::{Message, Name};

/// `google.protobuf.Any` whose value is [`Bytes`], so that one encoded resource is shared by every session that sends it.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Name for Any {
    const NAME: &'static str = "Any";
    const PACKAGE: &'static str = "google.protobuf";
}

impl Any {
    /// Packs `message` under `type.googleapis.com/<full name>`.
    pub fn pack<M: Message + Name>(message: &M) -> Self {
        Self { type_url: type_url::<M>(), value: message.encode_to_vec().into() }
    }

    /// The full message name: what follows the last slash of the type URL.
    pub fn type_name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or_default()
    }

    pub fn is<M: Name>(&self) -> bool {
        self.type_name() == M::full_name()
    }
}

/// `type.googleapis.com/<full name>` of a message.
pub fn type_url<M: Name>() -> String {
    format!("type.googleapis.com/{}", M::full_name())
}
