//! Authorise, validate, orchestrate.
