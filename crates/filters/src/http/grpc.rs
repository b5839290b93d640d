//! Counting gRPC messages in a body: five bytes of prefix, then as many as they say.

/// One direction of one stream.
#[derive(Debug, Default)]
pub(crate) struct GrpcCounter {
    prefix: [u8; 5],
    have: usize,
    skip: u64,
}

impl GrpcCounter {
    /// Messages whose prefix ended in `data`.
    pub fn count(&mut self, mut data: &[u8]) -> u64 {
        let mut messages = 0;
        while !data.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(data.len() as u64);
                data = &data[n as usize..];
                self.skip -= n;
                continue;
            }
            self.prefix[self.have] = data[0];
            self.have += 1;
            data = &data[1..];
            if self.have == self.prefix.len() {
                let [_, length @ ..] = self.prefix;
                self.skip = u64::from(u32::from_be_bytes(length));
                self.have = 0;
                messages += 1;
            }
        }
        messages
    }
}
