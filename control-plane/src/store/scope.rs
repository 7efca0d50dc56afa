//! Which realms a list may show, as a condition of a query. Realms are stored as a JSON array of ids of one
//! form, so a quoted id is in the text or it is not.

use crate::caller::Caller;
use hoody_protocol::id::RealmId;

/// What a request may see: the same as [`Caller::sees`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    realms: Vec<RealmId>,
    /// Also what belongs to no realm.
    outside: bool,
}

/// For `LIKE`: the arrays with this realm.
pub fn pattern(realm: RealmId) -> String {
    format!("%\"{realm}\"%")
}

impl Scope {
    /// What the caller's request may see.
    pub fn of(caller: &Caller) -> Self {
        Self { realms: caller.realms().to_vec(), outside: caller.realm.is_none() }
    }

    /// True where something that belongs to `realms` is in it.
    pub fn sees(&self, realms: &[RealmId]) -> bool {
        self.realms.is_empty()
            || realms.iter().any(|realm| self.realms.contains(realm))
            || (self.outside && realms.is_empty())
    }

    /// The condition on `column`; what it compares with is added to `values`.
    pub fn condition(&self, column: &str, values: &mut Vec<String>) -> String {
        if self.realms.is_empty() {
            return "1 = 1".to_owned();
        }
        let mut any: Vec<String> = self
            .realms
            .iter()
            .map(|realm| {
                values.push(pattern(*realm));
                format!("{column} LIKE ${}", values.len())
            })
            .collect();
        if self.outside {
            any.push(format!("{column} = '[]'"));
        }
        format!("({})", any.join(" OR "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bound_and_never_text() {
        let realm: RealmId = "0123456789abcdef01234567".parse().unwrap();
        let mut values = vec!["first".to_owned()];
        assert_eq!(Scope::default().condition("r", &mut values), "1 = 1");
        let inside = Scope { realms: vec![realm], outside: false };
        assert_eq!(inside.condition("r", &mut values), "(r LIKE $2)");
        let both = Scope { realms: vec![realm, realm], outside: true };
        assert_eq!(both.condition("r", &mut values), "(r LIKE $3 OR r LIKE $4 OR r = '[]')");
        assert_eq!(values, ["first", &pattern(realm), &pattern(realm), &pattern(realm)]);
    }
}
