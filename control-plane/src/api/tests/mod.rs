//! The API as its clients see it.

mod access;
mod auth;
mod container_firewall;
mod container_limits;
mod containers;
mod contract;
mod idempotency;
mod images;
mod layers;
mod projects;
mod servers;
mod world;
