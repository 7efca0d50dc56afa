//! Finds the ids of the user a container's first process runs as, from the image's own `/etc/passwd`
//! and `/etc/group` (`passwd(5)`, `group(5)`). Both are a tenant's: lines that do not fit are skipped.

use super::{RuntimeError, rootfs::Rootfs};
use crate::storage::IdRange;
use hoody_protocol::id::ContainerId;

/// Supplementary groups given at most, far below the kernel's 65,536.
const MAX_GROUPS: usize = 256;

/// Ids inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

/// The ids that `text` (`uid[:gid]` or `name[:group]`; empty: root) names in `root`.
pub(super) fn lookup(id: ContainerId, root: &Rootfs, text: &str) -> Result<User, RuntimeError> {
    if matches!(text, "" | "0" | "0:0") {
        return Ok(User::default());
    }
    let passwd = root.read("/etc/passwd")?.unwrap_or_default();
    let groups = root.read("/etc/group")?.unwrap_or_default();
    resolve(text, &passwd, &groups).map_err(|reason| RuntimeError::Bundle { id, reason })
}

fn resolve(text: &str, passwd: &str, groups: &str) -> Result<User, String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let account = accounts(passwd).find(|account| account.name == user).or_else(|| {
        let uid = number(user)?;
        accounts(passwd).find(|account| account.uid == uid)
    });
    let uid = match (&account, number(user)) {
        (Some(account), _) => account.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(format!("no user {user:?} in the image")),
    };
    let gid = match group.filter(|group| !group.is_empty()) {
        Some(group) => entries(groups)
            .find(|entry| entry.name == group)
            .map(|entry| entry.gid)
            .or_else(|| number(group))
            .ok_or_else(|| format!("no group {group:?} in the image"))?,
        None => account.as_ref().map_or(0, |account| account.gid),
    };
    // A group that was named stands alone; without one, the account's memberships apply.
    let member = account.as_ref().filter(|_| group.is_none()).map(|account| account.name);
    let supplementary = entries(groups)
        .filter(|entry| member.is_some_and(|name| entry.members.split(',').any(|one| one == name)))
        .map(|entry| entry.gid)
        .take(MAX_GROUPS)
        .collect();
    if uid >= IdRange::LENGTH || gid >= IdRange::LENGTH {
        return Err(format!("user {text:?} is outside of the container's {} ids", IdRange::LENGTH));
    }
    Ok(User { uid, gid, groups: supplementary })
}

fn number(text: &str) -> Option<u32> {
    // `parse` alone would take "+5".
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

/// Names and user ids of `/etc/passwd`, in its order.
pub(super) fn names(passwd: &str) -> impl Iterator<Item = (&str, u32)> {
    accounts(passwd).map(|account| (account.name, account.uid))
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        Some(Account { name, uid, gid })
    })
}

struct Entry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn entries(groups: &str) -> impl Iterator<Item = Entry<'_>> {
    groups.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = number(fields.nth(1)?).filter(|gid| *gid < IdRange::LENGTH)?;
        Some(Entry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// Any text as the accounts of an image, whose first line names who is wanted, for fuzzing: all ids are the container's.
pub(crate) fn fuzzing(text: &str) {
    let (wanted, files) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(user) = resolve(wanted, files, files) {
        let mut ids = [user.uid, user.gid].into_iter().chain(user.groups.iter().copied());
        assert!(user.groups.len() <= MAX_GROUPS && ids.all(|id| id < IdRange::LENGTH));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:34::/:\nfar:x:70000:1::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nssl:x:110:mail,www\nhuge:x:4000000000:www\n";

    fn user(text: &str) -> Result<User, String> {
        resolve(text, PASSWD, GROUP)
    }

    #[test]
    fn names_numbers_and_groups_resolve() {
        assert_eq!(user("www").unwrap(), User { uid: 33, gid: 34, groups: vec![110] });
        assert_eq!(user("33").unwrap(), User { uid: 33, gid: 34, groups: vec![110] });
        assert_eq!(user("www:ssl").unwrap(), User { uid: 33, gid: 110, groups: vec![] });
        assert_eq!(user("1000").unwrap(), User { uid: 1000, gid: 0, groups: vec![] });
        assert_eq!(user("1000:1001").unwrap(), User { uid: 1000, gid: 1001, groups: vec![] });
    }

    #[test]
    fn unknown_and_unmapped_users_are_refused() {
        for bad in ["nobody", "www:nogroup", "far", "70000", "0:70000", "-1", "+5", "99999999999"] {
            assert!(user(bad).is_err(), "{bad}");
        }
    }
}
