//! Authorise, validate, orchestrate.

pub mod image;
pub mod password;
pub mod project;
pub mod session;
pub mod enrolment;
pub mod image;
