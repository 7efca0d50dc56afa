//! Accounts: how they come to be, change, are protected and go.

pub mod attempts;
pub mod history;
pub mod policy;
pub mod profile;
pub mod remove;
pub mod reset;
pub mod sign_up;
