//! The API as its clients see it.

mod access;
mod auth;
mod auth_tokens;
mod container_firewall;
mod containers;
mod contract;
mod idempotency;
mod images;
mod layers;
mod members;
mod pools;
mod projects;
mod servers;
mod world;
