//! The netlink dialect of nf_tables and ctnetlink, as far as the firewall speaks it.
//!
//! [`wire`] holds the numbers of the kernel's interface, [`attribute`] writes and reads attributes,
//! [`expression`] is what a rule is made of, [`batch`] gathers changes into one transaction, and
//! [`connection`] exchanges messages with the kernel under a deadline. Layouts follow the kernel's
//! `linux/netfilter/nf_tables.h`, `nfnetlink.h` and `nfnetlink_conntrack.h`, and RFC 3549.

pub(super) mod attribute;
pub(super) mod batch;
pub(super) mod connection;
pub(super) mod expression;
mod set_message;
pub(super) mod wire;
