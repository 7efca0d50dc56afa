//! The API as its clients see it.

mod auth;
mod contract;
mod idempotency;
mod images;
mod layers;
mod projects;
mod servers;
