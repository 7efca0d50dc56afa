//! The permissions of auth tokens: a fixed tree of yes or no. Each leaf is a [`Permission`], a set of them
//! is one number; the tree is the form in which clients send and get it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Map, Value};
use std::fmt;

/// Declares the leaves with their path in the tree.
macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $path:literal,)+) => {
        /// One leaf of the tree.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Permission {$(
            $(#[$doc])*
            $name,
        )+}

        impl Permission {
            /// All of them, in the order of the tree.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The path in the tree, with dots.
            pub const fn path(self) -> &'static str {
                match self {$(Self::$name => $path,)+}
            }
        }
    };
}

permissions! {
    /// Operators: rentals and payments of others.
    AdminBilling = "admin.billing",
    /// Operators: what goes on.
    AdminMonitoring = "admin.monitoring",
    /// Operators: servers and their enrolment.
    AdminServers = "admin.servers",
    /// Operators: the platform itself, and the containers of others.
    AdminSystem = "admin.system",
    /// Operators: accounts of others.
    AdminUsers = "admin.users",
    /// Run programs in containers and servers.
    ContainersExec = "containers.actions.exec",
    /// Read logs.
    ContainersLogs = "containers.actions.logs",
    /// Restart containers.
    ContainersRestart = "containers.actions.restart",
    /// Start and resume containers.
    ContainersStart = "containers.actions.start",
    /// Stop and pause containers.
    ContainersStop = "containers.actions.stop",
    /// Create and copy containers.
    ContainersCreate = "containers.create",
    /// Delete containers.
    ContainersDelete = "containers.delete",
    /// Use AI models.
    ContainersAi = "containers.features.ai",
    /// Use the platform's kit.
    ContainersHoodyKit = "containers.features.hoody_kit",
    /// Switch virtualisation.
    ContainersKvm = "containers.features.kvm",
    /// Change how containers reach the network.
    ContainersNetworking = "containers.features.networking",
    /// Take, restore and delete snapshots.
    ContainersSnapshots = "containers.features.snapshots",
    /// Read containers.
    ContainersRead = "containers.read",
    /// Change containers.
    ContainersUpdate = "containers.update",
    /// Make and fetch invoices.
    BillingInvoices = "financial.billing.download_invoices",
    /// Change how is paid.
    BillingMethods = "financial.billing.manage_payment_methods",
    /// Read invoices and ways of payment.
    BillingRead = "financial.billing.read",
    /// Extend rentals.
    RentalExtend = "financial.server_rental.extend_rentals",
    /// Rent servers.
    RentalRent = "financial.server_rental.rent_servers",
    /// End rentals.
    RentalTerminate = "financial.server_rental.terminate_rentals",
    /// See offers and rented servers.
    RentalView = "financial.server_rental.view_marketplace",
    /// Read balances and transactions.
    WalletRead = "financial.wallet.read",
    /// Move money between balances, and pay in.
    WalletTransfer = "financial.wallet.transfer",
    /// Pay out.
    WalletWithdraw = "financial.wallet.withdraw",
    /// Create projects and pools.
    ProjectsCreate = "projects.create",
    /// Delete projects and pools.
    ProjectsDelete = "projects.delete",
    /// Change what members of projects and pools may do.
    MembersChangeRoles = "projects.members.change_roles",
    /// Invite members.
    MembersInvite = "projects.members.invite",
    /// Remove members.
    MembersRemove = "projects.members.remove",
    /// Read projects and pools.
    ProjectsRead = "projects.read",
    /// Change projects and pools.
    ProjectsUpdate = "projects.update",
    /// Change the token's own public profile.
    PublicProfile = "resources.auth_token_public_profile",
    /// Make and manage auth tokens.
    CreateTokens = "resources.create_tokens",
    /// Read events; also needs the token's event access.
    Events = "resources.events",
    /// Read and change firewall rules.
    Firewalls = "resources.firewalls",
    /// Manage names under which containers are reached.
    ProxyAliases = "resources.proxy_aliases",
    /// Read the account.
    ReadAccount = "resources.read_account",
    /// List realms.
    Realms = "resources.realms",
    /// Manage SSH keys.
    SshKeys = "resources.ssh_keys",
    /// Manage folders shared between containers.
    StorageShares = "resources.storage_shares",
    /// Use the vault; also needs the token's vault access.
    Vault = "resources.vault",
}

impl Permission {
    const fn bit(self) -> u64 {
        1 << self as u32
    }

    /// Only for operators.
    pub const fn is_for_operators(self) -> bool {
        (self as u32) <= Self::AdminUsers as u32
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u64);

impl Permissions {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// These.
    pub const fn of(permissions: &[Permission]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < permissions.len() {
            bits |= permissions[index].bit();
            index += 1;
        }
        Self(bits)
    }

    /// All that an account without the admin flag can have.
    pub const fn of_tenants() -> Self {
        let all = Self::of(Permission::ALL).0;
        // The operators' permissions come first.
        Self(all & !(Permission::AdminUsers.bit() | (Permission::AdminUsers.bit() - 1)))
    }

    /// All of them.
    pub const fn all() -> Self {
        Self::of(Permission::ALL)
    }

    /// True where the permission is among them.
    pub const fn has(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// Those that are in both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are in one of them.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that `other` lacks.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True where there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them, in the order of the tree.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |permission| self.has(*permission))
    }

    /// Their paths with spaces between them: the stored form.
    pub fn to_text(self) -> String {
        self.iter().map(Permission::path).collect::<Vec<_>>().join(" ")
    }

    /// Reads [`Self::to_text`]. Paths that this build does not know permit nothing.
    pub fn from_text(text: &str) -> Self {
        let known = |path: &str| Permission::ALL.iter().find(|permission| permission.path() == path);
        text.split(' ').filter_map(known).fold(Self::NONE, |set, permission| Self(set.0 | permission.bit()))
    }

    /// Reads the tree. What is left out is not permitted.
    pub fn from_tree(tree: &Map<String, Value>) -> Result<Self, NotATree> {
        let mut set = 0;
        read("", tree, &mut set)?;
        Ok(Self(set))
    }

    /// The whole tree, every leaf true or false.
    pub fn tree(self) -> Map<String, Value> {
        let mut root = Map::new();
        for permission in Permission::ALL {
            let mut parts: Vec<&str> = permission.path().split('.').collect();
            let leaf = parts.pop().unwrap_or_default();
            let mut at = &mut root;
            for part in parts {
                let branch = at.entry(part).or_insert_with(|| Value::Object(Map::new()));
                // A path is never both a leaf and a branch; a test walks the tree.
                let Value::Object(inner) = branch else { return root };
                at = inner;
            }
            at.insert(leaf.to_owned(), Value::Bool(self.has(*permission)));
        }
        root
    }
}

/// A tree with something that the tree of permissions has not. The path begins below the tree's root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct NotATree {
    /// Where.
    pub path: String,
    /// What is wrong there.
    pub problem: &'static str,
}

fn read(prefix: &str, tree: &Map<String, Value>, set: &mut u64) -> Result<(), NotATree> {
    for (key, value) in tree {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let leaf = Permission::ALL.iter().find(|permission| permission.path() == path);
        let branch = || {
            let inside = |permission: &&Permission| {
                permission.path().strip_prefix(&path).is_some_and(|rest| rest.starts_with('.'))
            };
            Permission::ALL.iter().find(inside).is_some()
        };
        match (leaf, value) {
            (Some(permission), Value::Bool(true)) => *set |= permission.bit(),
            (Some(_), Value::Bool(false)) => {}
            (Some(_), _) => return Err(NotATree { path, problem: "must be true or false" }),
            (None, Value::Object(inner)) if branch() => read(&path, inner, set)?,
            (None, _) if branch() => return Err(NotATree { path, problem: "must be an object" }),
            (None, _) => return Err(NotATree { path, problem: "is not a permission" }),
        }
    }
    Ok(())
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Permission::path)).finish()
    }
}

impl Serialize for Permissions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.tree().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_tree(&Map::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn leaves(prefix: &str, tree: &Map<String, Value>) -> Vec<String> {
        let inner = |(key, value): (&String, &Value)| match value {
            Value::Object(inner) => leaves(&format!("{prefix}{key}."), inner),
            Value::Bool(_) => vec![format!("{prefix}{key}")],
            other => panic!("{prefix}{key}: {other}"),
        };
        tree.iter().flat_map(inner).collect()
    }

    #[test]
    fn every_permission_is_a_leaf_of_the_tree_and_comes_back_from_both_forms() {
        let mut paths: Vec<_> = Permission::ALL.iter().map(|permission| permission.path().to_owned()).collect();
        let mut found = leaves("", &Permissions::all().tree());
        paths.sort();
        found.sort();
        assert_eq!(found, paths);
        for set in [Permissions::NONE, Permissions::all(), Permissions::of(&[Permission::Vault])] {
            assert_eq!(Permissions::from_tree(&set.tree()), Ok(set));
            assert_eq!(Permissions::from_text(&set.to_text()), set);
        }
        assert_eq!(Permissions::from_text("resources.vault of.tomorrow"), Permissions::of(&[Permission::Vault]));
    }

    #[test]
    fn tenants_have_all_but_the_operators_permissions() {
        for permission in Permission::ALL {
            let operators = permission.path().starts_with("admin.");
            assert_eq!(permission.is_for_operators(), operators);
            assert_eq!(Permissions::of_tenants().has(*permission), !operators);
        }
    }

    #[test]
    fn what_is_left_out_is_not_permitted_and_what_is_unknown_is_refused() {
        let read = |value: Value| Permissions::from_tree(value.as_object().unwrap());
        let some = read(json!({"containers": {"read": true, "actions": {"exec": false}}, "projects": {}})).unwrap();
        assert_eq!(some, Permissions::of(&[Permission::ContainersRead]));
        for (tree, path) in [
            (json!({"containers": {"raed": true}}), "containers.raed"),
            (json!({"containers": true}), "containers"),
            (json!({"containers": {"read": "yes"}}), "containers.read"),
            (json!({"containers": {"read": {"all": true}}}), "containers.read"),
            (json!({"everything": {}}), "everything"),
        ] {
            assert_eq!(read(tree).unwrap_err().path, path);
        }
    }
}
