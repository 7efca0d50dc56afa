//! What names, addresses and passwords of accounts may be like.

use crate::{error::ServiceError, mail, service::password};
use std::collections::BTreeMap;
use zxcvbn::Score;

/// Characters of the shortest password that can be chosen. Older accounts may have shorter ones.
pub const MIN_NEW_PASSWORD_CHARS: usize = 12;
/// Bytes of the longest e-mail address.
pub const MAX_EMAIL_BYTES: usize = 255;
/// What a password must at least score: below it, about 10^6 guesses find it.
const MIN_SCORE: Score = Score::Two;
/// Words that everybody here would try first.
const WORDS: [&str; 3] = ["hoody", "container", "server"];

/// Problems by field.
pub type Problems = BTreeMap<String, String>;

/// The error of these problems, where there are any.
pub fn none_of(problems: Problems) -> Result<(), ServiceError> {
    if problems.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(problems)) }
}

/// Checks a user name.
pub fn username(username: &str, problems: &mut Problems) {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(3..=50).contains(&username.len()) || !username.chars().all(plain) {
        problems.insert("username".to_owned(), "must be 3 to 50 letters, digits, - or _".to_owned());
    }
}

/// Checks an e-mail address.
pub fn email(email: &str, problems: &mut Problems) {
    let has_domain = email.rsplit_once('@').is_some_and(|(_, host)| host.contains('.'));
    if email.len() > MAX_EMAIL_BYTES || !has_domain || !mail::is_address(email) {
        problems.insert("email".to_owned(), "must be an e-mail address".to_owned());
    }
}

/// Checks a password that somebody chooses. `known` are texts that whoever guesses it knows: name and address.
pub async fn new_password(secret: &str, known: &[&str], problems: &mut Problems) -> Result<(), ServiceError> {
    let chars = secret.chars().count();
    if !(MIN_NEW_PASSWORD_CHARS..=password::MAX_CHARS).contains(&chars) {
        let problem = format!("must be {MIN_NEW_PASSWORD_CHARS} to {} characters", password::MAX_CHARS);
        problems.insert("password".to_owned(), problem);
        return Ok(());
    }
    let secret = zeroize::Zeroizing::new(secret.to_owned());
    let known: Vec<String> =
        known.iter().flat_map(|text| text.split(['@', '.']).chain([*text])).chain(WORDS).map(str::to_owned).collect();
    // The longest ones take milliseconds, too long for a thread that serves others.
    let score = tokio::task::spawn_blocking(move || {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        zxcvbn::zxcvbn(&secret, &known).score()
    });
    if score.await.map_err(ServiceError::internal)? < MIN_SCORE {
        let problem = "is too easy to guess: choose a longer one, or several uncommon words";
        problems.insert("password".to_owned(), problem.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn problems(secret: &str) -> Problems {
        let mut problems = Problems::new();
        new_password(secret, &["annabel", "annabel.lee@example.org"], &mut problems).await.unwrap();
        problems
    }

    #[tokio::test]
    async fn trivial_passwords_are_refused_and_others_not() {
        for secret in
            ["password1234", "aaaaaaaaaaaa", "qwertyuiop12", "annabel.lee@example.org", "hoodyhoodyhoody", "short"]
        {
            assert!(problems(secret).await.contains_key("password"), "{secret}");
        }
        let long = "x7".repeat(65);
        assert!(problems(&long).await.contains_key("password"));
        for secret in ["SecureP@ss123", "SecurePass123!", "NewSecureP@ss456", "correct horse battery"] {
            assert!(problems(secret).await.is_empty(), "{secret}");
        }
    }

    #[test]
    fn names_and_addresses_are_plain() {
        let check = |name: &str, address: &str| {
            let mut problems = Problems::new();
            username(name, &mut problems);
            email(address, &mut problems);
            problems.len()
        };
        assert_eq!(check("Ann_1", "ann@example.org"), 0);
        for (name, address) in [("ab", "ann"), ("a b", "ann@localhost"), ("ann@x", "a\r\nb@example.org")] {
            assert_eq!(check(name, address), 2, "{name} {address}");
        }
    }
}
