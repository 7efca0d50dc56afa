//! The API as its clients see it.

mod auth;
mod contract;
mod idempotency;
mod layers;
mod projects;
