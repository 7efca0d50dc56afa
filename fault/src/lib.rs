//! Fault points: named places at which a program under test kills itself with SIGKILL, so that what a crash
//! there leaves behind can be looked at.
//!
//! They exist only in builds with debug assertions, which `cargo build` and `cargo test` make and
//! `cargo build --release` does not: in a release build [`reach`] is empty, and neither the names nor the
//! environment variables are in the program. A cargo feature would not do: features of a workspace are
//! unified, so what the tests turn on a release build of the workspace would get too.
//!
//! | variable | what |
//! | --- | --- |
//! | `HOODY_FAULT_POINT` | `<name>[:<hit>]`: dies when the point is reached the hit-th time, by default the first |
//! | `HOODY_FAULT_FOLDER` | a folder: its file `armed` names a point in the same form and may change at any time; every point that is reached is added to its file `reached` |
//! | `HOODY_FAULT_BOOT_ID` | the boot id that the agent believes instead of the kernel's |

mod names;

pub use names::{
    AGENT, AGENT_COMMANDS, AGENT_EXPORTS, AGENT_TRANSFERS, CONTROL_PLANE, CONTROL_PLANE_COMMANDS, CONTROL_PLANE_MOVES,
    CONTROL_PLANE_RELAYS, CONTROL_PLANE_TRANSFERS, IMPORTS, OPERATOR, REGISTRY,
};

/// True where fault points are compiled in.
pub const COMPILED_IN: bool = cfg!(debug_assertions);

/// Kills this process where the point of this name is armed. A name that is in no list does not compile.
#[macro_export]
macro_rules! point {
    ($name:literal) => {{
        const { assert!($crate::is_listed($name), "the fault point is in no list of names") };
        $crate::reach($name);
    }};
}

/// Every list.
pub const ALL: &[&[&str]] = &[
    REGISTRY,
    AGENT,
    CONTROL_PLANE,
    AGENT_COMMANDS,
    AGENT_TRANSFERS,
    CONTROL_PLANE_COMMANDS,
    AGENT_EXPORTS,
    IMPORTS,
    CONTROL_PLANE_TRANSFERS,
    CONTROL_PLANE_MOVES,
    CONTROL_PLANE_RELAYS,
    OPERATOR,
];

/// True where a list has the name.
pub const fn is_listed(name: &str) -> bool {
    let mut index = 0;
    while index < ALL.len() {
        if contains(ALL[index], name) {
            return true;
        }
        index += 1;
    }
    false
}

const fn contains(list: &[&str], name: &str) -> bool {
    let mut index = 0;
    while index < list.len() {
        if equal(list[index].as_bytes(), name.as_bytes()) {
            return true;
        }
        index += 1;
    }
    false
}

const fn equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(not(debug_assertions))]
#[doc(hidden)]
#[inline(always)]
pub fn reach(_: &'static str) {}

/// The boot id to believe; `None`: the kernel's.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn boot_id() -> Option<String> {
    None
}

#[cfg(debug_assertions)]
mod armed;
#[cfg(debug_assertions)]
#[doc(hidden)]
pub use armed::reach;

/// The boot id to believe; `None`: the kernel's.
#[cfg(debug_assertions)]
pub fn boot_id() -> Option<String> {
    std::env::var("HOODY_FAULT_BOOT_ID").ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique() {
        let all = ALL.concat();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert!(all.iter().all(|name| is_listed(name)));
        assert!(!is_listed("no such point") && !is_listed(""));
    }
}
