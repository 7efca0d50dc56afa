//! The table of operations: which kind of caller may call each, and which permissions an auth token needs
//! for it. A session needs none: it is the account itself.
//!
//! Every operation has a line, also those that are not built yet; one without a line is refused, and fails a
//! test. Whether the caller may touch the object that is asked for is [`super::object`]'s question.

use super::{
    Permission::{self, *},
    Permissions,
};

/// Which callers an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Everybody, with or without a credential.
    Anyone,
    /// An account that is logged in; no auth token.
    Session,
    /// An auth token; no session.
    Token,
    /// An account that is logged in, or an auth token with the permissions.
    Known,
    /// An account with the admin flag that is logged in, or an auth token of one with the permissions.
    Operator,
}

/// What an operation asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Which callers it is for.
    pub who: Who,
    /// What an auth token must be allowed, all of it.
    pub needs: Permissions,
    /// The path's `{operation}` decides too: see [`Rule::permissions`].
    pub by_verb: bool,
    /// It takes user name and password in the request itself as well.
    pub takes_basic: bool,
    /// It hands out a credential: not for tokens that deny reauthorization.
    pub hands_out_credential: bool,
}

impl Rule {
    const fn new(who: Who, needs: &[Permission]) -> Self {
        Self { who, needs: Permissions::of(needs), by_verb: false, takes_basic: false, hands_out_credential: false }
    }

    const fn taking_basic(mut self) -> Self {
        self.takes_basic = true;
        self
    }

    const fn handing_out_credential(mut self) -> Self {
        self.hands_out_credential = true;
        self
    }

    /// What an auth token must be allowed; `verb` is the path's `{operation}`, decoded.
    pub fn permissions(self, verb: &str) -> Permissions {
        if !self.by_verb {
            return self.needs;
        }
        self.needs.or(Permissions::of(match verb {
            "start" | "resume" => &[ContainersStart],
            "stop" | "force-stop" | "pause" => &[ContainersStop],
            "restart" => &[ContainersRestart],
            _ => &[ContainersUpdate],
        }))
    }
}

/// The rule of an operation.
pub fn rule(operation: &str) -> Option<Rule> {
    TABLE.iter().find(|(id, _)| *id == operation).map(|(_, rule)| *rule)
}

/// For everybody.
pub const ANYONE: Rule = Rule::new(Who::Anyone, &[]);
const SESSION: Rule = Rule::new(Who::Session, &[]);
const KNOWN: Rule = Rule::new(Who::Known, &[]);
const VERB: Rule = Rule { by_verb: true, ..KNOWN };

const fn token(permissions: &[Permission]) -> Rule {
    Rule::new(Who::Token, permissions)
}

const fn needs(permission: Permission) -> Rule {
    Rule::new(Who::Known, &[permission])
}

const fn all_of(permissions: &[Permission]) -> Rule {
    Rule::new(Who::Known, permissions)
}

const fn operator(permission: Permission) -> Rule {
    Rule::new(Who::Operator, &[permission])
}

/// Operation → rule.
#[rustfmt::skip]
pub const TABLE: &[(&str, Rule)] = &[
    ("activity.getStats", needs(ReadAccount)),
    ("activity.list", needs(ReadAccount)),
    ("admin.commands.create", operator(AdminSystem)),
    ("admin.commands.delete", operator(AdminSystem)),
    ("admin.commands.get", operator(AdminSystem)),
    ("admin.commands.list", operator(AdminSystem)),
    ("admin.commands.patch", operator(AdminSystem)),
    ("admin.commands.update", operator(AdminSystem)),
    ("admin.images.delete", operator(AdminSystem)),
    ("admin.images.list", operator(AdminSystem)),
    ("admin.inviteCodes.create", operator(AdminUsers)),
    ("admin.inviteCodes.delete", operator(AdminUsers)),
    ("admin.inviteCodes.list", operator(AdminUsers)),
    ("admin.notifications.create", operator(AdminSystem)),
    ("admin.notifications.delete", operator(AdminSystem)),
    ("admin.notifications.list", operator(AdminSystem)),
    ("admin.operations.get", operator(AdminMonitoring)),
    ("admin.operations.list", operator(AdminMonitoring)),
    ("admin.servers.adoptUnknownContainer", operator(AdminServers)),
    ("admin.servers.create", operator(AdminServers)),
    ("admin.servers.createJoinToken", operator(AdminServers)),
    ("admin.servers.delete", operator(AdminServers)),
    ("admin.servers.disable", operator(AdminServers)),
    ("admin.servers.drain", operator(AdminServers)),
    ("admin.servers.enable", operator(AdminServers)),
    ("admin.servers.get", operator(AdminServers)),
    ("admin.servers.getDrain", operator(AdminServers)),
    ("admin.servers.list", operator(AdminServers)),
    ("admin.servers.listUnknownContainers", operator(AdminServers)),
    ("admin.servers.patch", operator(AdminServers)),
    ("admin.servers.removeUnknownContainer", operator(AdminServers)),
    ("admin.servers.revoke", operator(AdminServers)),
    ("admin.servers.stopDrain", operator(AdminServers)),
    ("admin.servers.update", operator(AdminServers)),
    ("admin.users.list", operator(AdminUsers)),
    ("admin.users.remove", operator(AdminUsers)),
    ("ai.listModels", KNOWN),
    ("authTokens.addRealm", needs(CreateTokens)),
    ("authTokens.copy", needs(CreateTokens).handing_out_credential()),
    ("authTokens.create", needs(CreateTokens).handing_out_credential()),
    ("authTokens.delete", needs(CreateTokens)),
    ("authTokens.get", needs(CreateTokens)),
    ("authTokens.getCurrent", token(&[])),
    ("authTokens.getPublicProfile", KNOWN),
    ("authTokens.list", needs(CreateTokens)),
    ("authTokens.listAuthTokenPermissionTemplates", KNOWN),
    ("authTokens.patch", needs(CreateTokens)),
    ("authTokens.patchPublicProfile", token(&[PublicProfile])),
    ("authTokens.removeRealm", needs(CreateTokens)),
    ("authTokens.update", needs(CreateTokens)),
    ("authTokens.updatePublicProfile", token(&[PublicProfile])),
    ("authentication.api_issueIdentityClaim", SESSION),
    ("authentication.forgotPassword", ANYONE),
    ("authentication.getAvailableRegions", ANYONE),
    ("authentication.getCurrentUser", needs(ReadAccount).taking_basic()),
    ("authentication.getCurrentUserAlias", needs(ReadAccount).taking_basic()),
    ("authentication.getOAuthConfig", ANYONE),
    ("authentication.githubOAuthCallback", ANYONE),
    ("authentication.githubOAuthRedirect", ANYONE),
    ("authentication.googleOAuthCallback", ANYONE),
    ("authentication.googleOAuthRedirect", ANYONE),
    ("authentication.login", ANYONE),
    ("authentication.logout", SESSION),
    ("authentication.oauthAuthorize", ANYONE),
    ("authentication.oauthCancelIntent", ANYONE),
    ("authentication.oauthDeviceAuthorize", ANYONE),
    ("authentication.oauthDeviceCode", ANYONE),
    ("authentication.oauthDeviceDeny", ANYONE),
    ("authentication.oauthDeviceLogin", ANYONE),
    ("authentication.oauthDeviceToken", ANYONE),
    ("authentication.oauthDeviceVerifyCode", ANYONE),
    ("authentication.oauthExchange", ANYONE),
    ("authentication.oauthLaunchInitiate", ANYONE),
    ("authentication.oauthLaunchStart", ANYONE),
    ("authentication.refreshToken", ANYONE),
    ("authentication.resendVerification", ANYONE),
    ("authentication.resetPassword", ANYONE),
    ("authentication.signup", ANYONE),
    ("authentication.verifyEmail", ANYONE),
    ("containers.authorize", needs(ContainersExec).handing_out_credential()),
    ("containers.copy", needs(ContainersCreate)),
    ("containers.create", needs(ContainersCreate)),
    ("containers.createSnapshot", needs(ContainersSnapshots)),
    ("containers.delete", needs(ContainersDelete)),
    ("containers.deleteSnapshot", needs(ContainersSnapshots)),
    ("containers.endTerminal", needs(ContainersExec)),
    ("containers.exec", needs(ContainersExec)),
    ("containers.export", all_of(&[ContainersRead, ContainersSnapshots])),
    ("containers.get", needs(ContainersRead)),
    ("containers.getLogs", needs(ContainersLogs)),
    ("containers.getMove", needs(ContainersRead)),
    ("containers.getNetworkConfig", needs(ContainersRead)),
    ("containers.getStats", needs(ContainersRead)),
    ("containers.getStatusLogs", needs(ContainersLogs)),
    ("containers.import", needs(ContainersCreate)),
    ("containers.list", needs(ContainersRead)),
    ("containers.listByProject", needs(ContainersRead)),
    ("containers.listSnapshots", needs(ContainersRead)),
    ("containers.listTerminals", needs(ContainersExec)),
    ("containers.manage", VERB),
    ("containers.move", needs(ContainersUpdate)),
    ("containers.openTerminal", needs(ContainersExec)),
    ("containers.patch", needs(ContainersUpdate)),
    ("containers.patchNetworkConfig", needs(ContainersNetworking)),
    ("containers.patchRestoreSnapshot", needs(ContainersSnapshots)),
    ("containers.patchSnapshotAlias", needs(ContainersSnapshots)),
    ("containers.removeNetworkConfig", needs(ContainersNetworking)),
    ("containers.restoreSnapshot", needs(ContainersSnapshots)),
    ("containers.setContainerKvm", needs(ContainersKvm)),
    ("containers.startNetwork", needs(ContainersNetworking)),
    ("containers.stopNetwork", needs(ContainersNetworking)),
    ("containers.sync", needs(ContainersUpdate)),
    ("containers.update", needs(ContainersUpdate)),
    ("containers.updateNetworkConfig", needs(ContainersNetworking)),
    ("containers.updateSnapshotAlias", needs(ContainersSnapshots)),
    ("env.bulkSet", needs(ContainersUpdate)),
    ("env.delete", needs(ContainersUpdate)),
    ("env.list", needs(ContainersRead)),
    ("env.set", needs(ContainersUpdate)),
    ("events.bulkDelete", all_of(&[Events, ProjectsDelete])),
    ("events.cleanup", all_of(&[Events, ProjectsDelete])),
    ("events.delete", all_of(&[Events, ProjectsDelete])),
    ("events.get", needs(Events)),
    ("events.getStats", needs(Events)),
    ("events.list", needs(Events)),
    ("events.socket", needs(Events)),
    ("events.stream", needs(Events)),
    ("firewall.addEgressRule", needs(Firewalls)),
    ("firewall.addIngressRule", needs(Firewalls)),
    ("firewall.list", needs(ContainersRead)),
    ("firewall.removeEgressRule", needs(Firewalls)),
    ("firewall.removeIngressRule", needs(Firewalls)),
    ("firewall.reset", needs(Firewalls)),
    ("firewall.toggleEgressRule", needs(Firewalls)),
    ("firewall.toggleIngressRule", needs(Firewalls)),
    ("health.live", ANYONE),
    ("health.ready", ANYONE),
    ("images.getDetails", KNOWN),
    ("images.getIcon", ANYONE),
    ("images.importFree", needs(ContainersCreate)),
    ("images.list", needs(ContainersRead)),
    ("images.listPublic", KNOWN),
    ("images.purchase", needs(WalletTransfer)),
    ("images.rate", needs(ContainersUpdate)),
    ("meta.getPublicKey", ANYONE),
    ("meta.getSocialStats", ANYONE),
    ("notifications.list", needs(ReadAccount)),
    ("notifications.listPublic", ANYONE),
    ("notifications.markAllRead", needs(ReadAccount)),
    ("notifications.markRead", needs(ReadAccount)),
    ("notifications.patchAllRead", needs(ReadAccount)),
    ("notifications.patchRead", needs(ReadAccount)),
    ("poolInvitations.accept", needs(ProjectsUpdate)),
    ("poolInvitations.list", needs(ProjectsRead)),
    ("poolInvitations.reject", needs(ProjectsUpdate)),
    ("poolMembers.invite", needs(MembersInvite)),
    ("poolMembers.patchRole", needs(MembersChangeRoles)),
    ("poolMembers.remove", needs(MembersRemove)),
    ("poolMembers.updateRole", needs(MembersChangeRoles)),
    ("pools.create", needs(ProjectsCreate)),
    ("pools.delete", needs(ProjectsDelete)),
    ("pools.get", needs(ProjectsRead)),
    ("pools.list", needs(ProjectsRead)),
    ("pools.patch", needs(ProjectsUpdate)),
    ("pools.update", needs(ProjectsUpdate)),
    ("projects.addPermission", needs(MembersInvite)),
    ("projects.create", needs(ProjectsCreate)),
    ("projects.delete", needs(ProjectsDelete)),
    ("projects.get", needs(ProjectsRead)),
    ("projects.getStats", all_of(&[ProjectsRead, ContainersRead])),
    ("projects.list", needs(ProjectsRead)),
    ("projects.listPermissions", needs(ProjectsRead)),
    ("projects.patch", needs(ProjectsUpdate)),
    ("projects.patchPermission", needs(MembersChangeRoles)),
    ("projects.removePermission", needs(MembersRemove)),
    ("projects.update", needs(ProjectsUpdate)),
    ("projects.updatePermission", needs(MembersChangeRoles)),
    ("proxyAliases.create", needs(ProxyAliases)),
    ("proxyAliases.delete", needs(ProxyAliases)),
    ("proxyAliases.get", needs(ContainersRead)),
    ("proxyAliases.list", needs(ContainersRead)),
    ("proxyAliases.setState", needs(ProxyAliases)),
    ("proxyAliases.update", needs(ProxyAliases)),
    ("proxyDiscovery.getContainerProxyService", needs(ContainersRead)),
    ("proxyDiscovery.getContainerProxySettings", needs(ContainersRead)),
    ("proxyDiscovery.listContainerProxyGroups", needs(ContainersRead)),
    ("proxyDiscovery.listContainerProxyServices", needs(ContainersRead)),
    ("proxyDiscovery.updateContainerProxySettings", needs(ContainersNetworking)),
    ("proxyHooks.addContainerProxyHook", needs(ContainersNetworking)),
    ("proxyHooks.clearContainerProxyServiceHooks", needs(ContainersNetworking)),
    ("proxyHooks.getContainerProxyHook", needs(ContainersRead)),
    ("proxyHooks.listContainerProxyHooks", needs(ContainersRead)),
    ("proxyHooks.listContainerProxyServiceHooks", needs(ContainersRead)),
    ("proxyHooks.moveContainerProxyHook", needs(ContainersNetworking)),
    ("proxyHooks.removeContainerProxyHook", needs(ContainersNetworking)),
    ("proxyHooks.updateContainerProxyHook", needs(ContainersNetworking)),
    ("proxyLogs.logs.getStats", needs(ContainersLogs)),
    ("proxyLogs.logs.list", needs(ContainersLogs)),
    ("proxyLogs.logs.streamLogs", needs(ContainersLogs)),
    ("proxyPermissionsContainer.delete", needs(ContainersNetworking)),
    ("proxyPermissionsContainer.get", needs(ContainersRead)),
    ("proxyPermissionsContainer.removeAuthGroup", needs(ContainersNetworking)),
    ("proxyPermissionsContainer.removeGroup", needs(ContainersNetworking)),
    ("proxyPermissionsContainer.removeProgram", needs(ContainersNetworking)),
    ("proxyPermissionsContainer.replace", needs(ContainersNetworking)),
    ("proxyPermissionsContainer.setGroup", needs(ContainersNetworking)),
    ("proxyPermissionsContainer.setIpGroup", needs(ContainersNetworking)),
    ("proxyPermissionsContainer.setJwtGroup", needs(ContainersNetworking)),
    ("proxyPermissionsContainer.setPasswordGroup", needs(ContainersNetworking)),
    ("proxyPermissionsContainer.setTokenGroup", needs(ContainersNetworking)),
    ("proxyPermissionsContainer.updateDefault", needs(ContainersNetworking)),
    ("proxyPermissionsContainer.updateState", needs(ContainersNetworking)),
    ("proxyPermissionsProject.delete", needs(ProjectsUpdate)),
    ("proxyPermissionsProject.get", needs(ProjectsRead)),
    ("proxyPermissionsProject.removeAuthGroup", needs(ProjectsUpdate)),
    ("proxyPermissionsProject.removeGroup", needs(ProjectsUpdate)),
    ("proxyPermissionsProject.removeProgram", needs(ProjectsUpdate)),
    ("proxyPermissionsProject.replace", needs(ProjectsUpdate)),
    ("proxyPermissionsProject.setGroup", needs(ProjectsUpdate)),
    ("proxyPermissionsProject.setIpGroup", needs(ProjectsUpdate)),
    ("proxyPermissionsProject.setJwtGroup", needs(ProjectsUpdate)),
    ("proxyPermissionsProject.setPasswordGroup", needs(ProjectsUpdate)),
    ("proxyPermissionsProject.setTokenGroup", needs(ProjectsUpdate)),
    ("proxyPermissionsProject.updateDefault", needs(ProjectsUpdate)),
    ("proxyPermissionsProject.updateState", needs(ProjectsUpdate)),
    ("realms.list", needs(Realms)),
    ("rentals.extend", needs(RentalExtend)),
    ("rentals.get", needs(RentalView)),
    ("rentals.list", needs(RentalView)),
    ("serverCommands.cancelExecution", needs(ContainersExec)),
    ("serverCommands.execute", needs(ContainersExec)),
    ("serverCommands.getExecution", all_of(&[ContainersLogs, RentalView])),
    ("serverCommands.list", needs(RentalView)),
    ("serverCommands.listExecutions", all_of(&[ContainersLogs, RentalView])),
    ("serverCommands.streamExecution", all_of(&[ContainersLogs, RentalView])),
    ("serverRental.browse", needs(RentalView)),
    ("serverRental.drain", needs(RentalRent)),
    ("serverRental.get", needs(RentalView)),
    ("serverRental.getDrain", needs(RentalView)),
    ("serverRental.getMyReservation", needs(RentalView)),
    ("serverRental.getRentalRuntime", needs(RentalView)),
    ("serverRental.getServerRuntime", needs(RentalView)),
    ("serverRental.list", needs(RentalView)),
    ("serverRental.listMyReservations", needs(RentalView)),
    ("serverRental.listServerOffers", needs(RentalView)),
    ("serverRental.rent", needs(RentalRent)),
    ("serverRental.reserveServerOffer", needs(RentalRent)),
    ("serverRental.stopDrain", needs(RentalRent)),
    ("storageShares.create", needs(StorageShares)),
    ("storageShares.delete", needs(StorageShares)),
    ("storageShares.get", needs(ContainersRead)),
    ("storageShares.list", needs(ContainersRead)),
    ("storageShares.listGlobal", needs(ContainersRead)),
    ("storageShares.listIncoming", needs(ContainersRead)),
    ("storageShares.listIncomingGlobal", needs(ContainersRead)),
    ("storageShares.toggleIncomingMount", needs(StorageShares)),
    ("storageShares.update", needs(StorageShares)),
    ("tfa.disable", SESSION),
    ("tfa.getStatus", needs(ReadAccount)),
    ("tfa.patchTokenGate", SESSION),
    ("tfa.regenerateBackupCodes", SESSION),
    ("tfa.setTokenGate", SESSION),
    ("tfa.setup", SESSION),
    ("tfa.verify", ANYONE),
    ("tfa.verifySetup", SESSION),
    ("users.get", needs(ReadAccount)),
    ("users.getFreeTierStatus", needs(ReadAccount)),
    ("users.getSecurityHistory", needs(ReadAccount)),
    ("users.markOnboardingMilestone", SESSION),
    ("users.patch", SESSION),
    ("users.redeemInviteCode", SESSION),
    ("users.retrySetup", SESSION),
    ("users.update", SESSION),
    ("utilities.getIpInfo", ANYONE),
    ("vault.clear", needs(Vault)),
    ("vault.delete", needs(Vault)),
    ("vault.get", needs(Vault)),
    ("vault.getStats", needs(Vault)),
    ("vault.list", needs(Vault)),
    ("vault.patch", needs(Vault)),
    ("vault.set", needs(Vault)),
    ("waitlist.waitlistEnrich", ANYONE),
    ("waitlist.waitlistJoin", ANYONE),
    ("wallet.addPaymentMethod", needs(BillingMethods)),
    ("wallet.claimGithubBonus", SESSION),
    ("wallet.createCryptoInvoice", needs(WalletTransfer)),
    ("wallet.createStripeCheckout", needs(WalletTransfer)),
    ("wallet.deletePaymentMethod", needs(BillingMethods)),
    ("wallet.downloadInvoicePdf", needs(BillingInvoices)),
    ("wallet.generateInvoice", needs(BillingInvoices)),
    ("wallet.getAggregateBalances", needs(WalletRead)),
    ("wallet.getAiBalance", needs(WalletRead)),
    ("wallet.getCryptoPaymentIntent", needs(WalletRead)),
    ("wallet.getGeneralBalance", needs(WalletRead)),
    ("wallet.getGithubBonus", needs(WalletRead)),
    ("wallet.getInvoice", needs(BillingRead)),
    ("wallet.getPaymentAvailability", needs(BillingRead)),
    ("wallet.getPaymentMethod", needs(BillingRead)),
    ("wallet.getStripePaymentIntent", needs(WalletRead)),
    ("wallet.getTransaction", needs(WalletRead)),
    ("wallet.listAiFeeHistory", needs(WalletRead)),
    ("wallet.listCryptoPaymentIntents", needs(WalletRead)),
    ("wallet.listInvoices", needs(BillingRead)),
    ("wallet.listPaymentMethods", needs(BillingRead)),
    ("wallet.listStripePaymentIntents", needs(WalletRead)),
    ("wallet.listTransactions", needs(WalletRead)),
    ("wallet.setDefaultPaymentMethod", needs(BillingMethods)),
    ("wallet.transferToAi", needs(WalletTransfer)),
    ("wallet.updatePaymentMethod", needs(BillingMethods)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_each_operation_once() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} before {}", pair[0].0, pair[1].0);
        }
    }

    #[test]
    fn an_operation_on_a_container_needs_the_permission_of_its_verb() {
        let manage = rule("containers.manage").unwrap();
        assert_eq!(manage.permissions("start"), Permissions::of(&[ContainersStart]));
        assert_eq!(manage.permissions("force-stop"), Permissions::of(&[ContainersStop]));
        assert_eq!(manage.permissions("restart"), Permissions::of(&[ContainersRestart]));
        assert_eq!(manage.permissions("explode"), Permissions::of(&[ContainersUpdate]));
    }
}
