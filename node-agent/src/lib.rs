//! The node agent: executes on one rented server what the control plane wants of it.
//!
//! Data flows one way: [`link`] (to the control plane) → [`desired`] (persisted state and journal) →
//! [`reconcile`] (one owner task per container) → the kernel-facing capabilities [`images`],
//! [`storage`], [`shares`], [`ramdisk`], [`runtime`], [`network`], [`firewall`], [`stats`], [`exec`] and [`logs`]. Only those touch the kernel;
//! each stands behind a small trait that is passed in. [`commands`] run beside them, on the server itself. [`agent`]
//! puts it all together.

pub mod agent;
pub mod archive;
mod background;
pub mod cli;
pub mod commands;
pub mod config;
pub mod desired;
pub mod dial;
pub mod doctor;
pub mod egress;
mod error;
pub mod exec;
pub mod facts;
pub mod firewall;
#[doc(hidden)]
pub mod fuzzing;
pub mod images;
pub mod link;
pub mod logs;
pub mod names;
pub mod network;
pub mod ramdisk;
pub mod reconcile;
pub mod runtime;
pub mod sandbox;
pub mod shares;
pub mod stats;
pub mod storage;
mod timing;
pub mod transfer;
