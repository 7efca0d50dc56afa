//! `hoody-proxy`: see [`hoody_proxy`].

fn main() {}
