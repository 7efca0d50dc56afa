//! The runtime against the real kernel, runc and conmon. Needs root.

mod harness;
mod lifecycle;
