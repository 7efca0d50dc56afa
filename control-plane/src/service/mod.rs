//! Authorise, validate, orchestrate.
pub mod enrolment;
pub mod image;
