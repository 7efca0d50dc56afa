//! A token never has more than the token that made it: not when it is made, and not after either of them is
//! changed. [`clamp`] is the one rule; what it would change is what a token must not be given.

use crate::store::auth_token::AuthToken;
use hoody_protocol::id::RealmId;
use ipnet::IpNet;

/// Takes from `token` all that `maker` has not. Where nothing of its realms or networks would be left, it
/// is disabled instead: an empty list would mean everywhere.
pub(super) fn clamp(token: &mut AuthToken, maker: &AuthToken) {
    token.permissions = token.permissions.and(maker.permissions);
    token.vault_access &= maker.vault_access;
    token.event_access &= maker.event_access;
    token.allow_no_realm &= maker.allow_no_realm;
    token.is_suspended = !maker.is_active();
    token.expires_at = match (token.expires_at, maker.expires_at) {
        (Some(own), Some(end)) => Some(own.min(end)),
        (own, end) => own.or(end),
    };
    let realms = common_realms(&token.realms, &maker.realms);
    let networks = common_networks(&token.networks, &maker.networks);
    match (realms, networks) {
        (Some(realms), Some(networks)) => (token.realms, token.networks) = (realms, networks),
        _ => token.is_enabled = false,
    }
}

/// What `token` has and `maker` has not, in a client's words; `None`: nothing.
pub(super) fn excess(token: &AuthToken, maker: &AuthToken) -> Option<String> {
    let mut within = token.clone();
    clamp(&mut within, maker);
    let lacking = token.permissions.without(within.permissions).iter().next();
    let field = match lacking {
        Some(permission) => return Some(format!("the permission {}", permission.path())),
        None if token.vault_access != within.vault_access => "vault_access",
        None if token.event_access != within.event_access => "event_access",
        None if token.allow_no_realm != within.allow_no_realm => "allow_no_realm",
        None if token.expires_at != within.expires_at => "an expires_at so late",
        None if token.is_enabled != within.is_enabled || token.realms != within.realms => "these realm_ids",
        None if token.networks != within.networks => "this ip_whitelist",
        None => return None,
    };
    Some(field.to_owned())
}

/// Clamps every token to its maker, makers first; gives those that changed.
pub(super) fn clamp_all(mut tokens: Vec<AuthToken>) -> Vec<AuthToken> {
    tokens.sort_by_key(|token| token.depth);
    let mut changed = Vec::new();
    for index in 0..tokens.len() {
        let (makers, rest) = tokens.split_at_mut(index);
        let token = &mut rest[0];
        let Some(maker) = makers.iter().find(|maker| Some(maker.id) == token.maker) else { continue };
        let before = token.clone();
        clamp(token, maker);
        if *token != before {
            changed.push(token.clone());
        }
    }
    changed
}

/// True where `token` is `ancestor`, or comes from it.
pub(super) fn descends(tokens: &[AuthToken], token: &AuthToken, ancestor: &AuthToken) -> bool {
    let mut at = Some(token);
    while let Some(here) = at {
        if here.id == ancestor.id {
            return true;
        }
        at = tokens.iter().find(|other| Some(other.id) == here.maker);
    }
    false
}

fn common_realms(own: &[RealmId], makers: &[RealmId]) -> Option<Vec<RealmId>> {
    if makers.is_empty() {
        return Some(own.to_vec());
    }
    if own.is_empty() {
        return Some(makers.to_vec());
    }
    let common: Vec<_> = own.iter().copied().filter(|realm| makers.contains(realm)).collect();
    (!common.is_empty()).then_some(common)
}

fn common_networks(own: &[IpNet], makers: &[IpNet]) -> Option<Vec<IpNet>> {
    if makers.is_empty() {
        return Some(own.to_vec());
    }
    if own.is_empty() {
        return Some(makers.to_vec());
    }
    // Of two networks one is inside of the other, or they have nothing in common.
    let mut common = Vec::new();
    for network in own {
        if makers.iter().any(|maker| maker.contains(network)) {
            common.push(*network);
        } else {
            common.extend(makers.iter().filter(|maker| network.contains(*maker)));
        }
    }
    (!common.is_empty()).then_some(common)
}

#[cfg(test)]
#[path = "bounds_tests.rs"]
mod tests;
