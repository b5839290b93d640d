//! Whether the proxy is a native sidecar: an init container that is never done.

/// Since when native sidecars are stable in Kubernetes.
const SINCE: (u32, u32) = (1, 33);

/// `ENABLE_NATIVE_SIDECARS`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NativeSidecars {
    /// Where every node knows them.
    #[default]
    Auto,
    Always,
    Never,
}

/// A node, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// `status.nodeInfo.kubeletVersion`, such as `v1.33.2+k3s1`.
    pub kubelet_version: String,
}

impl NativeSidecars {
    /// # Errors
    /// When it is none of the three values.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "auto" => Ok(Self::Auto),
            "true" => Ok(Self::Always),
            "false" => Ok(Self::Never),
            _ => Err(format!("ENABLE_NATIVE_SIDECARS: {text:?} is none of true, false, auto")),
        }
    }

    /// For a pod of a node, if that is decided already.
    pub fn for_pod(self, node_name: &str, nodes: &[Node]) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => match nodes.iter().find(|node| node.name == node_name) {
                Some(node) => node.knows_native_sidecars(),
                None => nodes.iter().all(Node::knows_native_sidecars),
            },
        }
    }
}

impl Node {
    fn knows_native_sidecars(&self) -> bool {
        let text = self.kubelet_version.strip_prefix('v').unwrap_or(&self.kubelet_version);
        let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        match (parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= SINCE,
            _ => {
                tracing::warn!(node = self.name, version = self.kubelet_version, "not a version of Kubernetes");
                false
            }
        }
    }
}
