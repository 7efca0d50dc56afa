//! Keys: token signing, response signing, the certificate authority and sealing.

/// The opened keys.
#[derive(Debug)]
pub struct Keys {}
