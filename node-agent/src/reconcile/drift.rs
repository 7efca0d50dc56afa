//! What belongs to no container and can be changed by others all the same: the kernel's network settings and
//! the base of the firewall. Looked at as often as each container is, and at once where the kernel tells of a
//! change; the containers are woken then, for their own chains may be gone as well.

use super::{Reconciler, Shared, context::Context};
use std::{sync::Weak, time::Duration};

/// Between two looks that the kernel's news bring about: whoever changes things in a loop must not keep the agent
/// from everything else.
const BREATH: Duration = Duration::from_millis(20);

/// Looks and repairs until the reconciler is gone.
pub(super) async fn run(reconciler: Weak<Shared>) {
    let Some(shared) = reconciler.upgrade() else { return };
    let pause = shared.context.settings.drift_interval;
    let firewall = shared.context.capabilities.firewall.clone();
    drop(shared);
    loop {
        // The agent's start has just put all of it in force.
        let told = tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = firewall.changed() => true,
        };
        let Some(shared) = reconciler.upgrade() else { return };
        look(&shared.context).await;
        if told {
            Reconciler(shared).wake_all();
            tokio::time::sleep(BREATH).await;
        }
    }
}

async fn look(context: &Context) {
    look_at_firewall(context).await;
    // Settings are written only where they differ.
    if let Err(error) = context.capabilities.network.prepare().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the network's settings were not repaired");
    }
    if let Err(error) = context.capabilities.egress.prepare().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the routing to the relay was not repaired");
    }
}

async fn look_at_firewall(context: &Context) {
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
