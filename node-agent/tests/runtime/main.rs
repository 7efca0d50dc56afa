//! The runtime against the real kernel, runc and conmon. Needs root, busybox-static, catatonit and a C
//! compiler; the test of a system image also mmdebstrap, the first time it runs on a machine.

// Helpers of tests are not test functions, and fail the same way.
#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

mod attended;
mod crun;
mod exec;
mod failures;
mod harness;
mod inside;
mod inspect;
mod isolation;
mod kvm;
mod lifecycle;
mod limits;
mod logs;
mod speed;
mod survival;
mod system_image;
mod unified;
