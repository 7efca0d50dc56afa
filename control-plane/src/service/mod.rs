//! Authorise, validate, orchestrate.

pub mod enrolment;
pub mod image;
pub mod operation_list;
pub mod password;
pub mod project;
pub mod server;
pub mod session;
