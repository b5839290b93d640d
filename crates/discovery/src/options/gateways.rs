//! What is made for the Gateway API by itself, under istiod's variables.

#[derive(Debug, Clone, clap::Args)]
pub struct GatewayArgs {
    /// Deploy a proxy with a Service for each Gateway that names no Service of its own
    #[arg(id = "gatewayDeployments", long = "gatewayDeployments", env = "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER",
        num_args = 0..=1, default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub deploys: bool,
    /// Make the GatewayClasses istio and istio-remote where they are not there
    #[arg(id = "gatewayClasses", long = "gatewayClasses", env = "PILOT_ENABLE_GATEWAY_API_GATEWAYCLASS_CONTROLLER",
        num_args = 0..=1, default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub makes_classes: bool,
}

impl Default for GatewayArgs {
    fn default() -> Self {
        Self { deploys: true, makes_classes: true }
    }
}
