//! `COMPLIANCE_POLICY`: rules over all TLS of this process, and in discovery over that of the mesh's proxies.

use meltemi_base::Compliance;

const VARIABLE: &str = "COMPLIANCE_POLICY";

/// Before anything speaks TLS.
pub fn begin() -> Result<(), String> {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    if text.is_empty() {
        return Ok(());
    }
    let policy: Compliance = text.parse().map_err(|error| format!("{VARIABLE}: {error}"))?;
    meltemi_tls::comply(policy).map_err(|error| format!("{VARIABLE}: {error}"))
}

/// Once there is a log: what a policy takes beside its rules.
pub fn warn() {
    let fips = matches!(meltemi_tls::compliance(), Some(Compliance::Fips140_2 | Compliance::Fips140_3));
    if fips && !meltemi_tls::is_validated_module() {
        tracing::warn!(
            "{VARIABLE}: its rules hold, by a cryptographic module that is not validated; the feature fips builds with one"
        );
    }
}
