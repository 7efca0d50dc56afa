//! The API as its clients see it.

mod access;
mod auth;
mod auth_tokens;
mod container_firewall;
mod container_limits;
mod containers;
mod contract;
mod events;
mod exec;
mod free_tier;
mod idempotency;
mod images;
mod layers;
mod live;
mod mailbox;
mod members;
mod pools;
mod projects;
mod record;
mod servers;
mod sign_in;
mod sign_up;
mod two_factor;
mod users;
mod vault;
mod world;
