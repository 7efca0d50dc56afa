//! The contract's event types, each with the type of resource it is about.

use std::{fmt, str::FromStr};

/// The text is none of the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be one of the contract's words")]
pub struct UnknownWord;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident: $($variant:ident = $word:literal;)+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "the contract's words say what they are")]
        pub enum $name { $($variant,)+ }

        impl $name {
            /// All of them, in the contract's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The contract's word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().find(|word| word.as_str() == text).copied().ok_or(UnknownWord)
            }
        }
    };
}

macro_rules! kinds {
    ($($variant:ident = $word:literal of $resource:ident;)+) => {
        words! {
            /// What took place.
            EventKind: $($variant = $word;)+
        }

        impl EventKind {
            /// What it is about.
            pub const fn resource(self) -> ResourceKind {
                match self { $(Self::$variant => ResourceKind::$resource,)+ }
            }
        }
    };
}

words! {
    /// What an event is about.
    ResourceKind:
    Container = "container";
    StorageShare = "storage_share";
    Notification = "notification";
    Project = "project";
    Server = "server";
    Firewall = "firewall";
    ProxyAlias = "proxy_alias";
    ProxyPermissions = "proxy_permissions";
    AuthToken = "auth_token";
    Pool = "pool";
    User = "user";
    ActivityLog = "activity_log";
}

kinds! {
    ContainerCreating = "container.creating" of Container;
    ContainerRunning = "container.running" of Container;
    ContainerStopped = "container.stopped" of Container;
    ContainerFailed = "container.failed" of Container;
    ContainerDeleting = "container.deleting" of Container;
    ContainerDeleted = "container.deleted" of Container;
    ContainerAutostartEnabled = "container.autostart_enabled" of Container;
    ContainerAutostartDisabled = "container.autostart_disabled" of Container;
    ContainerRenamed = "container.renamed" of Container;
    ContainerResourceUpdated = "container.resource_updated" of Container;
    ContainerSshKeyAdded = "container.ssh_key.added" of Container;
    ContainerSshKeyRemoved = "container.ssh_key.removed" of Container;
    ContainerSnapshotCreated = "container.snapshot.created" of Container;
    ContainerSnapshotDeleted = "container.snapshot.deleted" of Container;
    ContainerSnapshotRestored = "container.snapshot.restored" of Container;
    ContainerSnapshotRenamed = "container.snapshot.renamed" of Container;
    ContainerDisplayEnabled = "container.display.enabled" of Container;
    StorageShareCreated = "storage.share.created" of StorageShare;
    StorageShareUpdated = "storage.share.updated" of StorageShare;
    StorageShareDeleted = "storage.share.deleted" of StorageShare;
    StorageShareEnabled = "storage.share.enabled" of StorageShare;
    StorageShareDisabled = "storage.share.disabled" of StorageShare;
    StorageShareExpiringSoon = "storage.share.expiring_soon" of StorageShare;
    StorageShareExpired = "storage.share.expired" of StorageShare;
    StorageShareMountChanged = "storage.share.mount_changed" of StorageShare;
    NotificationCreated = "notification.created" of Notification;
    NotificationRead = "notification.read" of Notification;
    NotificationDeleted = "notification.deleted" of Notification;
    ProjectCreated = "project.created" of Project;
    ProjectUpdated = "project.updated" of Project;
    ProjectDeleted = "project.deleted" of Project;
    ServerCreated = "server.created" of Server;
    ServerUpdated = "server.updated" of Server;
    ServerEnabled = "server.enabled" of Server;
    ServerDisabled = "server.disabled" of Server;
    ServerHealthChanged = "server.health_changed" of Server;
    ServerRentalExpiring = "server.rental_expiring" of Server;
    FirewallRuleAdded = "firewall.rule.added" of Firewall;
    FirewallRuleRemoved = "firewall.rule.removed" of Firewall;
    FirewallRuleUpdated = "firewall.rule.updated" of Firewall;
    FirewallRuleEnabled = "firewall.rule.enabled" of Firewall;
    FirewallRuleDisabled = "firewall.rule.disabled" of Firewall;
    ProxyAliasCreated = "proxy.alias.created" of ProxyAlias;
    ProxyAliasUpdated = "proxy.alias.updated" of ProxyAlias;
    ProxyAliasDeleted = "proxy.alias.deleted" of ProxyAlias;
    ProxyAliasEnabled = "proxy.alias.enabled" of ProxyAlias;
    ProxyAliasDisabled = "proxy.alias.disabled" of ProxyAlias;
    ProxyAliasExpiringSoon = "proxy.alias.expiring_soon" of ProxyAlias;
    ProxyAliasExpired = "proxy.alias.expired" of ProxyAlias;
    ProxyPermissionsUpdated = "proxy.permissions.updated" of ProxyPermissions;
    ProxyPermissionsDefaultChanged = "proxy.permissions.default_changed" of ProxyPermissions;
    ProxyPermissionsGroupAdded = "proxy.permissions.group_added" of ProxyPermissions;
    ProxyPermissionsGroupUpdated = "proxy.permissions.group_updated" of ProxyPermissions;
    ProxyPermissionsGroupRemoved = "proxy.permissions.group_removed" of ProxyPermissions;
    AuthTokenCreated = "auth.token.created" of AuthToken;
    AuthTokenUpdated = "auth.token.updated" of AuthToken;
    AuthTokenDeleted = "auth.token.deleted" of AuthToken;
    AuthTokenEnabled = "auth.token.enabled" of AuthToken;
    AuthTokenDisabled = "auth.token.disabled" of AuthToken;
    PoolMemberJoined = "pool.member.joined" of Pool;
    PoolMemberLeft = "pool.member.left" of Pool;
    PoolMemberRoleChanged = "pool.member.role_changed" of Pool;
    PoolInvited = "pool.invited" of Pool;
    PoolInvitationRevoked = "pool.invitation_revoked" of Pool;
    UserCreated = "user.created" of User;
    UserBanned = "user.banned" of User;
    UserUnbanned = "user.unbanned" of User;
    UserRoleChanged = "user.role_changed" of User;
    ActivityLogged = "activity.logged" of ActivityLog;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_as_many_as_the_contract_has_and_each_is_read_back() {
        assert_eq!((EventKind::ALL.len(), ResourceKind::ALL.len()), (69, 12));
        let words: BTreeSet<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words.len(), 69);
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
            let resource = kind.resource().as_str();
            let first = resource.split('_').next().unwrap();
            assert!(kind.as_str().starts_with(first), "{kind} is about {resource}");
        }
        assert!("container.started".parse::<EventKind>().is_err());
    }

    #[test]
    fn no_fault_point_is_in_an_events_word() {
        // By their names `scripts/check-release.sh` tells that fault points are in a program.
        for point in hoody_fault::ALL.concat() {
            let event = EventKind::ALL.iter().find(|kind| kind.as_str().contains(point));
            assert_eq!(event, None, "{point}");
        }
    }
}
