//! Authorise, validate, orchestrate.

pub mod activity;
pub mod auth_token;
pub mod container;
pub mod enrolment;
pub mod environment;
pub mod event;
pub mod firewall;
pub mod image;
pub mod notification;
pub mod operation_list;
pub mod password;
pub mod project;
pub mod server;
pub mod session;
pub mod vault;
