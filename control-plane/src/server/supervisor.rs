//! Notifications to systemd (`sd_notify(3)`); where there is none, nothing happens.

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service supervisor could not be notified");
    }
}

/// Tells that requests are served, and from now on that the process is alive, twice as often as asked.
pub(super) fn ready() -> JoinHandle<()> {
    notify(&[NotifyState::Ready]);
    tokio::spawn(async {
        let Some(interval) = sd_notify::watchdog_enabled() else { return };
        let mut ticks = tokio::time::interval(interval / 2);
        loop {
            ticks.tick().await;
            notify(&[NotifyState::Watchdog]);
        }
    })
}

/// Tells that the process is on its way out.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}
