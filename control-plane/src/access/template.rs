//! Named sets of permissions for common purposes.

use super::{
    Permission::{self, *},
    Permissions,
};

/// A template.
#[derive(Debug, Clone, Copy)]
pub struct Template {
    /// The word in `permission_template`.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// What it permits.
    pub permissions: Permissions,
}

const CONTAINERS: &[Permission] = &[
    ContainersExec,
    ContainersLogs,
    ContainersRestart,
    ContainersStart,
    ContainersStop,
    ContainersCreate,
    ContainersDelete,
    ContainersAi,
    ContainersHoodyKit,
    ContainersKvm,
    ContainersNetworking,
    ContainersSnapshots,
    ContainersRead,
    ContainersUpdate,
];

/// Every template. No template permits what only operators may do.
pub const TEMPLATES: &[Template] = &[
    Template {
        name: "full_access",
        title: "Full access",
        description: "All that the account itself may do, but for the operators' part.",
        permissions: Permissions::of_tenants(),
    },
    Template {
        name: "external_customer",
        title: "External customer",
        description: "Sees projects and containers, and starts, stops and restarts them.",
        permissions: Permissions::of(&[
            ContainersLogs,
            ContainersRestart,
            ContainersStart,
            ContainersStop,
            ContainersRead,
            ProjectsRead,
        ]),
    },
    Template {
        name: "dev_team",
        title: "Development team",
        description: "Works with containers and projects; no money, members or tokens.",
        permissions: Permissions::of(CONTAINERS).or(Permissions::of(&[
            ProjectsCreate,
            ProjectsRead,
            ProjectsUpdate,
            Events,
            Firewalls,
            ProxyAliases,
            ReadAccount,
            Realms,
            SshKeys,
            StorageShares,
            Vault,
            RentalView,
        ])),
    },
    Template {
        name: "finance_team",
        title: "Finance team",
        description: "Works with invoices, payments and rentals; sees no container.",
        permissions: Permissions::of(&[
            BillingInvoices,
            BillingMethods,
            BillingRead,
            RentalExtend,
            RentalRent,
            RentalTerminate,
            RentalView,
            WalletRead,
            WalletTransfer,
            ReadAccount,
        ]),
    },
    Template {
        name: "read_only",
        title: "Read only",
        description: "Sees everything but the vault, and changes nothing.",
        permissions: Permissions::of(&[
            ContainersLogs,
            ContainersRead,
            BillingRead,
            RentalView,
            WalletRead,
            ProjectsRead,
            Events,
            ReadAccount,
            Realms,
        ]),
    },
];

/// The template with this name.
pub fn find(name: &str) -> Option<&'static Template> {
    TEMPLATES.iter().find(|template| template.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_template_is_for_operators_and_read_only_changes_nothing() {
        for template in TEMPLATES {
            assert!(template.permissions.without(Permissions::of_tenants()).is_empty(), "{}", template.name);
        }
        let changing = find("read_only").unwrap().permissions.iter().filter(|permission| {
            let path = permission.path();
            !path.ends_with("read")
                && !matches!(permission, ContainersLogs | RentalView | Events | ReadAccount | Realms)
        });
        assert_eq!(changing.count(), 0);
    }
}
