//! The reconciler in virtual time over a kernel in memory.

mod adoption;
mod converge;
mod crash;
mod damage;
mod delete;
mod egress;
mod fencing;
mod firewall;
mod interleaving;
mod limits;
mod operations;
mod retry;
mod shares;
mod snapshots;
mod ssh_key;
mod stop;
mod transfer;
