//! Who may do what. One place for each question:
//!
//! - [`table`]: may this kind of caller, with these permissions, call this operation at all? Asked for every
//!   request before its handler runs.
//! - [`object`]: may this caller touch this project, container, server or pool? Asked by services.
//!
//! [`Permission`] names what an auth token can be allowed; a session has all of it.

pub mod object;
mod permission;
mod role;
pub mod table;
pub mod template;

pub use object::Level;
pub use permission::{NotATree, Permission, Permissions};
pub use role::{Role, UnknownRole};
