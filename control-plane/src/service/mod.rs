//! Authorise, validate, orchestrate.

pub mod auth_token;
pub mod container;
pub mod enrolment;
pub mod environment;
pub mod firewall;
pub mod image;
pub mod operation_list;
pub mod password;
pub mod project;
pub mod server;
pub mod session;
