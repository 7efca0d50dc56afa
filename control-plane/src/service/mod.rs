//! Authorise, validate, orchestrate.

pub mod enrolment;
pub mod image;
pub mod password;
pub mod project;
pub mod session;
