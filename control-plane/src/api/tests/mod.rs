//! The API as its clients see it.

mod access;
mod auth;
mod container_firewall;
mod containers;
mod contract;
mod events;
mod idempotency;
mod images;
mod layers;
mod live;
mod projects;
mod record;
mod servers;
mod vault;
mod world;
