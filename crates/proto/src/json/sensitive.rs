//! The fields that Envoy's API marks `(udpa.annotations.sensitive)`, and key sets of token issuers, which may hold secrets (`oct`).
//!
//! A table, since descriptors that pass through prost lose their custom options. Sorted.

#[rustfmt::skip]
const FIELDS: &[&str] = &[
    "envoy.config.core.v3.GrpcService.GoogleGrpc.SslCredentials.private_key",
    "envoy.config.grpc_credential.v3.FileBasedMetadataConfig.secret_data",
    "envoy.config.trace.v3.ClientConfig.backend_token",
    "envoy.extensions.common.aws.v3.AssumeRoleWithWebIdentityCredentialProvider.web_identity_token_data_source",
    "envoy.extensions.common.aws.v3.CredentialsFileCredentialProvider.credentials_data_source",
    "envoy.extensions.common.aws.v3.IAMRolesAnywhereCredentialProvider.private_key",
    "envoy.extensions.common.aws.v3.InlineCredentialProvider.secret_access_key",
    "envoy.extensions.common.aws.v3.InlineCredentialProvider.session_token",
    "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth.credentials",
    "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuthPerRoute.credentials",
    "envoy.extensions.filters.http.basic_auth.v3.BasicAuth.users",
    "envoy.extensions.filters.http.basic_auth.v3.BasicAuthPerRoute.users",
    "envoy.extensions.filters.http.ext_authz.v3.CheckSettings.context_extensions",
    "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider.local_jwks",
    "envoy.extensions.filters.network.redis_proxy.v3.RedisProtocolOptions.Credential.auth_password",
    "envoy.extensions.filters.network.redis_proxy.v3.RedisProtocolOptions.Credential.auth_username",
    "envoy.extensions.filters.network.redis_proxy.v3.RedisProtocolOptions.auth_password",
    "envoy.extensions.filters.network.redis_proxy.v3.RedisProtocolOptions.auth_username",
    "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy.downstream_auth_password",
    "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy.downstream_auth_passwords",
    "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy.downstream_auth_username",
    "envoy.extensions.grpc_service.call_credentials.file_based_metadata.v3.FileBasedMetadataCallCredentials.secret_data",
    "envoy.extensions.transport_sockets.tls.v3.GenericSecret.secret",
    "envoy.extensions.transport_sockets.tls.v3.GenericSecret.secrets",
    "envoy.extensions.transport_sockets.tls.v3.PrivateKeyProvider.typed_config",
    "envoy.extensions.transport_sockets.tls.v3.TlsCertificate.password",
    "envoy.extensions.transport_sockets.tls.v3.TlsCertificate.pkcs12",
    "envoy.extensions.transport_sockets.tls.v3.TlsCertificate.private_key",
    "envoy.extensions.transport_sockets.tls.v3.TlsSessionTicketKeys.keys",
];

/// Whether the field of this full name may hold a secret.
pub(super) fn is_sensitive(full_name: &str) -> bool {
    FIELDS.binary_search(&full_name).is_ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn table_is_sorted_and_names_fields_that_exist() {
        assert!(super::FIELDS.is_sorted());
        for name in super::FIELDS {
            let (message, field) = name.rsplit_once('.').unwrap();
            let known =
                super::super::descriptor(message).is_some_and(|message| message.get_field_by_name(field).is_some());
            assert!(known, "{name}");
        }
    }
}
