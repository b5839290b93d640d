//! What a [`Compliance`] leaves of the provider: suites, versions by way of them, and groups.

use meltemi_base::Compliance;
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, NamedGroup};

const ECDHE_AES_GCM: [CipherSuite; 4] = [
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

const AES_GCM: [CipherSuite; 2] = [CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_AES_128_GCM_SHA256];

fn allows(policy: Compliance, suite: CipherSuite) -> bool {
    match policy {
        Compliance::Fips140_2 => ECDHE_AES_GCM.contains(&suite),
        Compliance::Fips140_3 => ECDHE_AES_GCM.contains(&suite) || AES_GCM.contains(&suite),
        Compliance::PostQuantum => AES_GCM.contains(&suite),
    }
}

fn groups(policy: Compliance) -> &'static [NamedGroup] {
    match policy {
        Compliance::Fips140_2 => &[NamedGroup::secp256r1],
        Compliance::Fips140_3 => &[NamedGroup::secp256r1, NamedGroup::secp384r1],
        Compliance::PostQuantum => &[NamedGroup::X25519MLKEM768],
    }
}

pub(crate) fn restricted(mut provider: CryptoProvider, policy: Compliance) -> CryptoProvider {
    provider.cipher_suites.retain(|suite| allows(policy, suite.suite()));
    provider.kx_groups.retain(|group| groups(policy).contains(&group.name()));
    provider
}
