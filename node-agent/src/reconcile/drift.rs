//! What belongs to no container and can be changed by others all the same: the kernel's network settings and
//! the base of the firewall. Looked at as often as each container is.

use super::{Shared, context::Context};
use std::sync::Weak;

/// Looks and repairs until the reconciler is gone.
pub(super) async fn run(reconciler: Weak<Shared>) {
    let Some(pause) = reconciler.upgrade().map(|shared| shared.context.settings.drift_interval) else { return };
    loop {
        // The agent's start has just put all of it in force.
        tokio::time::sleep(pause).await;
        let Some(context) = reconciler.upgrade().map(|shared| shared.context.clone()) else { return };
        look(&context).await;
    }
}

async fn look(context: &Context) {
    // Settings are written only where they differ.
    if let Err(error) = context.capabilities.network.prepare().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the network's settings were not repaired");
    }
    if let Err(error) = context.capabilities.egress.prepare().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the routing to the relay was not repaired");
    }
    let firewall = &context.capabilities.firewall;
    let repaired = match firewall.is_prepared().await {
        Ok(true) => return,
        Ok(false) => firewall.prepare().await,
        Err(error) => Err(error),
    };
    match repaired {
        Ok(()) => tracing::warn!("the base of the firewall was changed by others and is made anew"),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the base of the firewall was not repaired");
        }
    }
}
