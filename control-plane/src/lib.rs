//! The control plane: the public HTTP API, the store of what should be, and the links to the nodes.
//!
//! Data flows one way: [`api`] (routes, request and response types) → [`service`] (authorise, validate,
//! orchestrate) → [`store`] (the only place with SQL). [`event`] is the record of what took place, [`live`]
//! delivers it. [`nodes`] speaks with the agents, [`scheduler`]
//! places containers, [`tasks`] run in the background.

pub mod access;
pub mod api;
pub mod app;
pub mod caller;
pub mod cli;
pub mod config;
pub mod error;
pub mod event;
#[doc(hidden)]
pub mod fuzzing;
pub mod keys;
pub mod live;
pub mod mail;
pub mod nodes;
pub mod page;
pub mod rate_limit;
pub mod scheduler;
pub mod server;
pub mod service;
pub mod store;
pub mod tasks;
mod timing;
