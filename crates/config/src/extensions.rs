//! `extensions.istio.io`: WasmPlugin, and TrafficExtension, which may also be Lua.

use crate::security::{LabelSelector, PolicyTargetReference};
use crate::wire::{Str, enumeration, message};

type Json = serde_json::Map<String, serde_json::Value>;

message! {
    /// `extensions.istio.io` WasmPlugin.
    struct WasmPlugin {
        selector: Option<LabelSelector>,
        /// Deprecated; `target_refs` with one entry.
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        /// `oci://` (also without a scheme), `https://`, `http://` or `file://`.
        url: Str,
        /// Of the module; of an image, of its manifest.
        sha256: Str,
        image_pull_policy: PullPolicy,
        image_pull_secret: Str,
        verification_key: Str,
        plugin_config: Option<Json>,
        plugin_name: Str,
        phase: PluginPhase,
        /// Within a phase, the greater is before the smaller.
        priority: Option<i32>,
        fail_strategy: FailStrategy,
        vm_config: Option<VmConfig>,
        #[serde(rename = "match")]
        matches: Vec<TrafficSelector>,
        #[serde(rename = "type")]
        plugin_type: PluginType,
    }

    /// `extensions.istio.io` TrafficExtension: exactly one of `wasm` and `lua`.
    struct TrafficExtension {
        selector: Option<LabelSelector>,
        target_refs: Vec<PolicyTargetReference>,
        phase: ExtensionPhase,
        priority: Option<i32>,
        #[serde(rename = "match")]
        matches: Vec<TrafficSelector>,
        wasm: Option<WasmConfig>,
        lua: Option<LuaConfig>,
    }

    struct WasmConfig {
        url: Str,
        sha256: Str,
        image_pull_policy: PullPolicy,
        image_pull_secret: Str,
        verification_key: Str,
        plugin_config: Option<Json>,
        plugin_name: Str,
        fail_strategy: FailStrategy,
        vm_config: Option<VmConfig>,
        #[serde(rename = "type")]
        plugin_type: PluginType,
    }

    struct LuaConfig {
        /// At most 64 KiB.
        inline_code: Str,
    }

    struct VmConfig {
        env: Vec<EnvironmentVariable>,
    }

    struct EnvironmentVariable {
        name: Str,
        value_from: EnvironmentSource,
        value: Str,
    }

    /// Both must hold; of the ports, one.
    struct TrafficSelector {
        mode: TrafficMode,
        ports: Vec<TrafficPort>,
    }

    struct TrafficPort {
        number: u32,
    }
}

enumeration! {
    enum PullPolicy {
        #[default]
        Unspecified = "UNSPECIFIED_POLICY",
        IfNotPresent = "IfNotPresent",
        Always = "Always",
    }

    enum PluginPhase {
        #[default]
        Unspecified = "UNSPECIFIED_PHASE",
        Authn = "AUTHN",
        Authz = "AUTHZ",
        Stats = "STATS",
    }

    enum ExtensionPhase {
        #[default]
        Unspecified = "UNSPECIFIED",
        Authn = "AUTHN",
        Authz = "AUTHZ",
        Stats = "STATS",
    }

    enum FailStrategy {
        #[default]
        Close = "FAIL_CLOSE",
        Open = "FAIL_OPEN",
        Reload = "FAIL_RELOAD",
    }

    enum PluginType {
        /// HTTP.
        #[default]
        Unspecified = "UNSPECIFIED_PLUGIN_TYPE",
        Http = "HTTP",
        Network = "NETWORK",
    }

    enum EnvironmentSource {
        #[default]
        Inline = "INLINE",
        /// Of the proxy's own environment.
        Host = "HOST",
    }

    enum TrafficMode {
        /// Client and server.
        #[default]
        Undefined = "UNDEFINED",
        Client = "CLIENT",
        Server = "SERVER",
        ClientAndServer = "CLIENT_AND_SERVER",
    }
}
