//! The API as its clients see it.

mod access;
mod auth;
mod auth_tokens;
mod container_firewall;
mod containers;
mod contract;
mod free_tier;
mod idempotency;
mod images;
mod layers;
mod mailbox;
mod members;
mod pools;
mod projects;
mod servers;
mod sign_in;
mod sign_up;
mod two_factor;
mod users;
mod world;
