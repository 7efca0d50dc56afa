use super::*;
use crate::{
    access::{Permission, Permissions},
    store::auth_token::testing,
};
use hoody_protocol::id::UserId;
use proptest::prelude::*;

const REALMS: [&str; 3] = ["00000000000000000000000a", "00000000000000000000000b", "00000000000000000000000c"];
const NETWORKS: [&str; 5] = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "2001:db8::/32", "192.0.2.0/24"];

prop_compose! {
    fn any_token()(
        permissions in proptest::collection::vec(0..Permission::ALL.len(), 0..12),
        realms in proptest::sample::subsequence(&REALMS[..], 0..=3),
        networks in proptest::sample::subsequence(&NETWORKS[..], 0..=3),
        flags in any::<[bool; 5]>(),
        expires_at in proptest::option::of(0..5i64),
    ) -> AuthToken {
        let permissions: Vec<_> = permissions.into_iter().map(|index| Permission::ALL[index]).collect();
        AuthToken {
            permissions: Permissions::of(&permissions),
            realms: realms.iter().map(|realm| realm.parse().unwrap()).collect(),
            networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
            vault_access: flags[0],
            event_access: flags[1],
            allow_no_realm: flags[2],
            is_enabled: flags[3],
            is_suspended: flags[4],
            expires_at,
            ..testing::blank(UserId::from_bytes([1; 12]))
        }
    }
}

/// True where a request in this realm, from this address, at this time gets through with the permission.
fn opens(token: &AuthToken, realm: Option<RealmId>, address: &str, now: i64, permission: Permission) -> bool {
    let address: std::net::IpAddr = address.parse().unwrap();
    let in_realm = match realm {
        Some(realm) => token.realms.is_empty() || token.realms.contains(&realm),
        None => token.allow_no_realm,
    };
    let from_there = token.networks.is_empty() || token.networks.iter().any(|network| network.contains(&address));
    token.is_active() && !token.has_expired(now) && in_realm && from_there && token.permissions.has(permission)
}

proptest! {
    /// Whatever the two were: what the clamped token opens, its maker opens too, and it did before.
    #[test]
    fn a_clamped_token_opens_nothing_that_its_maker_does_not(maker in any_token(), before in any_token()) {
        let mut token = before.clone();
        clamp(&mut token, &maker);
        let realms = REALMS.iter().map(|realm| Some(realm.parse().unwrap())).chain([None]);
        for realm in realms {
            for address in ["10.1.2.3", "10.1.9.9", "10.9.9.9", "192.0.2.1", "2001:db8::1", "198.51.100.1"] {
                for now in 0..5 {
                    for permission in Permission::ALL {
                        if opens(&token, realm, address, now, *permission) {
                            prop_assert!(opens(&maker, realm, address, now, *permission), "{permission:?} {address}");
                        }
                    }
                }
            }
        }
        prop_assert!(!token.vault_access || maker.vault_access);
        prop_assert!(!token.event_access || maker.event_access);
        let again = { let mut again = token.clone(); clamp(&mut again, &maker); again };
        prop_assert_eq!(&again, &token);
        if token.is_enabled {
            prop_assert_eq!(excess(&token, &maker), None);
        }
    }
}

#[test]
fn a_change_goes_down_the_whole_line() {
    let blank = || testing::blank(UserId::from_bytes([1; 12]));
    let first = AuthToken { is_enabled: false, permissions: Permissions::of(&[Permission::Vault]), ..blank() };
    let second = AuthToken { maker: Some(first.id), depth: 1, ..blank() };
    let third = AuthToken { maker: Some(second.id), depth: 2, ..blank() };
    let other = blank();
    let all = vec![third.clone(), second.clone(), other.clone(), first.clone()];
    assert!(descends(&all, &third, &first) && !descends(&all, &first, &third) && !descends(&all, &other, &first));
    let changed = clamp_all(all);
    assert_eq!(changed.iter().map(|token| token.id).collect::<Vec<_>>(), [second.id, third.id]);
    for token in changed {
        assert_eq!((token.permissions, token.is_active()), (first.permissions, false));
    }
}
