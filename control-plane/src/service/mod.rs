//! Authorise, validate, orchestrate.

pub mod account;
pub mod auth_token;
pub mod container;
pub mod enrolment;
pub mod environment;
pub mod firewall;
pub mod free_tier;
pub mod identity;
pub mod image;
pub mod one_time;
pub mod operation_list;
pub mod password;
pub mod pool;
pub mod project;
pub mod project_permission;
pub mod project_stats;
pub mod realm;
pub mod server;
pub mod session;
pub mod sign_in;
pub mod social_stats;
pub mod two_factor;
pub mod waitlist;
