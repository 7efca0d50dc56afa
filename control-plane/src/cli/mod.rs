//! The program's commands.

pub mod image;
