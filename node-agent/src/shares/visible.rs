//! Whether a container sees its folder of shares, from what the kernel says of its mounts (`proc_pid_mountinfo(5)`).

use hoody_protocol::id::ContainerId;

/// Name of the folder that appears in the container, inside its gate.
pub(super) const MOUNTS: &str = "mounts";

/// The peer group of what is mounted at `point`; `None` where it is not shared. `own` are the agent's own mounts.
pub(super) fn peer_group<'a>(own: &'a str, point: &str) -> Option<&'a str> {
    let at = |line: &&str| line.split(' ').nth(4) == Some(point);
    // What was mounted last is what is seen.
    own.lines().rev().find(at).and_then(|line| tag(line, "shared:"))
}

/// True where one of the container's mounts is the folder of shares of `id`, as a slave of `group`.
pub(super) fn has_folder(mounts: &str, id: ContainerId, group: &str) -> bool {
    let root = format!("/{id}/{MOUNTS}");
    mounts.lines().any(|line| line.split(' ').nth(3) == Some(root.as_str()) && tag(line, "master:") == Some(group))
}

/// True where the container's root is a slave of `group`.
pub(super) fn has_root(mounts: &str, group: &str) -> bool {
    mounts.lines().any(|line| line.split(' ').nth(4) == Some("/") && tag(line, "master:") == Some(group))
}

/// An optional field's value.
fn tag<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let optional = line.split(' ').skip(6).take_while(|field| *field != "-");
    optional.filter_map(|field| field.strip_prefix(name)).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef01234567";

    #[test]
    fn only_a_slave_of_the_folder_sees_what_is_mounted_there() {
        let id: ContainerId = ID.parse().unwrap();
        let own = "30 1 0:5 / /run rw shared:5 - tmpfs t rw\n44 30 0:31 / /run/x/shares rw shared:7 - tmpfs hoody rw\n";
        let group = peer_group(own, "/run/x/shares").unwrap();
        assert_eq!((group, peer_group(own, "/run/y")), ("7", None));
        let line = |root: &str, tags: &str| format!("90 80 0:31 {root} /mnt/shares ro,nosuid {tags}- tmpfs hoody rw");
        let folder = format!("/{ID}/mounts");
        assert!(has_folder(&line(&folder, "master:7 "), id, group));
        for other in [
            line(&folder, ""),
            line(&folder, "master:8 "),
            line(&folder, "shared:7 "),
            line(&format!("{folder}//deleted"), "master:7 "),
            line("/ffffffffffffffffffffffff/mounts", "master:7 "),
            String::new(),
        ] {
            assert!(!has_folder(&other, id, group), "{other}");
        }
        let root = |tags: &str| format!("70 60 0:31 /containers/{ID} / rw,nodev {tags}- btrfs x rw");
        assert!(has_root(&root("master:7 "), group));
        assert!(!has_root(&root(""), group) && !has_root(&root("master:8 "), group));
    }
}
