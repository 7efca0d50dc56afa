//! Which cgroup hierarchies are mounted where, from `proc_pid_mountinfo(5)`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// systemd's own v1 hierarchy, which has no controller.
pub(super) const SYSTEMD: &str = "name=systemd";

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    mount: PathBuf,
    /// Super block options of a v1 hierarchy: its controllers or name, and others.
    options: BTreeSet<String>,
    /// True for cgroup v2.
    pub(super) unified: bool,
}

impl Hierarchy {
    /// True where this is the v1 hierarchy of the controller or name.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.options.contains(controller)
    }

    /// The folder of a group that is absolute within the hierarchy.
    pub(super) fn folder(&self, group: &Path) -> PathBuf {
        self.mount.join(group.strip_prefix("/").unwrap_or(group))
    }
}

/// Every hierarchy once, by its first mount that shows it whole.
pub(super) fn parse(text: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in text.lines() {
        let Some(hierarchy) = parse_line(line) else { continue };
        let known = found.iter().any(|other| other.unified == hierarchy.unified && other.options == hierarchy.options);
        if !known {
            found.push(hierarchy);
        }
    }
    found
}

fn parse_line(line: &str) -> Option<Hierarchy> {
    let (mount, super_block) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (mount.next()?, mount.next()?);
    let mut super_block = super_block.split(' ');
    let (kind, options) = (super_block.next()?, super_block.nth(1)?);
    let unified = match kind {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    if root != "/" {
        return None;
    }
    let options = if unified { BTreeSet::new() } else { options.split(',').map(str::to_owned).collect() };
    Some(Hierarchy { mount: unescape(point).into(), options, unified })
}

/// Undoes the kernel's octal escapes of blanks and backslashes.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hierarchies_are_found_once_each() {
        let found = parse(include_str!("testdata/mountinfo-hybrid"));
        assert_eq!(found.len(), 4);
        assert!(found[0].has("cpu") && found[0].has("cpuacct") && !found[0].has("memory"));
        assert!(found[2].has(SYSTEMD));
        assert!(found[3].unified);
        assert_eq!(found[1].folder(Path::new("/hoody/a")), Path::new("/sys/fs/cgroup/memory/hoody/a"));
    }

    #[test]
    fn a_unified_node_has_one() {
        let found = parse(include_str!("testdata/mountinfo-unified"));
        assert_eq!(found.len(), 1);
        assert!(found[0].unified);
    }

    #[test]
    fn broken_lines_are_skipped() {
        assert!(parse("\n - \n1 2 - cgroup\n1 2 3 / /x rw - cgroup2\n").is_empty());
        assert_eq!(unescape("/a\\040b\\134"), "/a b\\");
    }
}
