//! SSH public keys, as clients write them: parsed as OpenSSH does, and written anew, so that nothing but type, body and
//! a harmless remark reaches a file.

use crate::{access::Permission, caller::Caller, error::ServiceError};
use hoody_protocol::{bounded::Text, ssh_key};
use ssh_key_format::{Algorithm, PublicKey};

/// A key as a specification has it.
pub(super) type SshKey = Text<{ ssh_key::MAX_BYTES }>;

/// Fewer bits of an RSA key are not taken: OpenSSH warns of less, and less than 1,024 it refuses.
const MIN_RSA_BITS: usize = 2048;
/// More are not either; ssh-keygen makes no longer ones.
const MAX_RSA_BITS: usize = 16_384;
const MAX_REMARK_CHARS: usize = 255;

/// The key in `text`; `None` where that is empty.
pub(super) fn parse(text: &str) -> Result<Option<SshKey>, String> {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    if text.is_empty() {
        return Ok(None);
    }
    if text.contains(['\n', '\r']) {
        return Err("takes one key on one line".to_owned());
    }
    if text.len() > ssh_key::MAX_BYTES {
        return Err(format!("takes at most {} bytes", ssh_key::MAX_BYTES));
    }
    let kind = text.split(' ').next().unwrap_or_default();
    if !ssh_key::TYPES.contains(&kind) {
        return Err(format!(
            "must begin with the type of the key, without options: one of {}",
            ssh_key::TYPES.join(", ")
        ));
    }
    let key = PublicKey::from_openssh(text)
        .map_err(|_| "is not an SSH public key: paste the line of a file such as ~/.ssh/id_ed25519.pub".to_owned())?;
    if key.algorithm().as_str() != kind {
        return Err("names another type than the key in it has".to_owned());
    }
    if matches!(key.algorithm(), Algorithm::Rsa { .. }) {
        let bits = key.key_data().rsa().and_then(|rsa| rsa.n.as_positive_bytes()).map_or(0, bits);
        if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
            return Err(format!("is an RSA key of {bits} bits: take {MIN_RSA_BITS} to {MAX_RSA_BITS}, or ssh-ed25519"));
        }
    }
    let remark = key.comment();
    if remark.chars().count() > MAX_REMARK_CHARS || remark.chars().any(char::is_control) {
        return Err(format!("takes a remark of at most {MAX_REMARK_CHARS} characters, without control characters"));
    }
    let line = key.to_openssh().map_err(|_| "cannot be written as one line".to_owned())?;
    let line = line.trim_end();
    if !ssh_key::is_one_line(line) {
        return Err("is not one line of type, key and remark".to_owned());
    }
    SshKey::try_from(line).map(Some).map_err(|error| error.to_string())
}

/// 403 where a key is `named`, or taken away, by a token that may not touch SSH keys.
pub(super) fn check_permission(caller: &Caller, named: bool) -> Result<(), ServiceError> {
    if named && !caller.may(Permission::SshKeys) {
        return Err(ServiceError::Forbidden("this token does not permit resources.ssh_keys".to_owned()));
    }
    Ok(())
}

/// The length of a number, most significant byte first.
fn bits(number: &[u8]) -> usize {
    let leading = number.first().map_or(0, |byte| byte.leading_zeros() as usize);
    (number.len() * 8).saturating_sub(leading)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn a_key_comes_out_as_one_line() {
        assert_eq!(parse(ED25519).unwrap().unwrap().as_str(), ED25519);
        let remarked = format!("{ED25519} ann at home");
        assert_eq!(parse(&format!(" {remarked}\r\n")).unwrap().unwrap().as_str(), remarked);
        assert_eq!((parse("").unwrap(), parse(" \n").unwrap()), (None, None));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let body = ED25519.split(' ').nth(1).unwrap();
        let two = format!("{ED25519}\n{ED25519}");
        let options = format!("command=\"id\" {ED25519}");
        let (mistyped, dsa) = (format!("ssh-rsa {body}"), format!("ssh-dss {body}"));
        let (cut, control) = (&ED25519[..60], format!("{ED25519} a\u{1b}[2J"));
        let long = format!("{ED25519} {}", "x".repeat(256));
        let huge = format!("{ED25519} {}", "x".repeat(5000));
        let marked = format!("cert-authority {ED25519}");
        for bad in [&two, &options, &mistyped, &dsa, cut, &control, &long, &huge, &marked, "ssh-ed25519", "x", body] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn short_rsa_keys_are_refused() {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let key = |bytes: usize| {
            let mut blob = Vec::new();
            let mut field = |bytes: &[u8]| {
                blob.extend((bytes.len() as u32).to_be_bytes());
                blob.extend_from_slice(bytes);
            };
            field(b"ssh-rsa");
            field(&[1, 0, 1]);
            // A leading zero: the number is positive.
            let mut modulus = vec![0xff; bytes + 1];
            modulus[0] = 0;
            field(&modulus);
            format!("ssh-rsa {}", STANDARD.encode(&blob))
        };
        assert!(parse(&key(256)).unwrap().is_some());
        let problem = parse(&key(128)).unwrap_err();
        assert!(problem.contains("1024 bits"), "{problem}");
    }
}
