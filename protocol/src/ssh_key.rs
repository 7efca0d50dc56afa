//! The form of an SSH public key, as one line of `authorized_keys` without options (sshd(8)). Whether the key
//! itself is sound is for the control plane; this is what must hold before a node writes it into a file.

/// Bytes of the longest key: RSA with 16,384 bits is below 3 KiB of base64.
pub const MAX_BYTES: usize = 4096;

/// The types that are taken. DSA is not: OpenSSH has given it up.
pub const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// True for `<type> <base64>[ <remark>]`: a known type first, so that no option can stand before it, and nothing that
/// ends a line.
pub fn is_one_line(text: &str) -> bool {
    let mut parts = text.splitn(3, ' ');
    let known = parts.next().is_some_and(|word| TYPES.contains(&word));
    let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    let body = parts.next().is_some_and(|body| !body.is_empty() && body.bytes().all(base64));
    let remark = parts.next().is_none_or(|remark| !remark.chars().any(char::is_control));
    known && body && remark && text.len() <= MAX_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_line_of_a_known_type_passes() {
        for good in ["ssh-ed25519 AAAAC3Nz", "ssh-rsa AAAA== ann at home", "sk-ssh-ed25519@openssh.com A+/="] {
            assert!(is_one_line(good), "{good}");
        }
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 ",
            "ssh-dss AAAA",
            "command=\"sh\" ssh-ed25519 AAAA",
            "no-pty ssh-ed25519 AAAA",
            "ssh-ed25519 AAAA\nssh-rsa BBBB",
            "ssh-ed25519 AA\tAA",
            "ssh-ed25519 AAAA a\rb",
            " ssh-ed25519 AAAA",
            &format!("ssh-ed25519 {}", "A".repeat(MAX_BYTES)),
        ] {
            assert!(!is_one_line(bad), "{bad:?}");
        }
    }
}
