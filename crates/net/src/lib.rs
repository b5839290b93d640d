//! Sockets for the data plane: byte streams, listeners, connecting, first-bytes inspection and relaying.
//!
//! Owns socket options and everything that happens before a protocol is spoken. Must never know of routes or clusters.
//! Reading an idle stream holds no buffer: see [`buffers`].

pub mod buffers;
pub mod connect;
pub mod copy;
pub mod listen;
pub mod original_dst;
pub mod proxy_protocol;
pub mod sniff;
pub mod stream;
pub mod timer;
pub mod tls;

pub use connect::{ConnectOptions, Keepalive, connect, mark_all_connections};
pub use copy::{Copied, CopyEnd, copy_bidirectional};
pub use listen::{ListenOptions, Listener, bind_udp};
pub use stream::{Address, DynStream, Stream};
