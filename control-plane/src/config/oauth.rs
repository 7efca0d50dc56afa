//! Signing in with GitHub and Google.

use super::Secret;
use std::path::PathBuf;

/// One provider, and how the platform is registered there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthClient {
    /// The registration's id.
    pub id: String,
    /// Its secret.
    pub secret: Secret,
    /// The provider's page.
    pub authorize_url: String,
    /// Where codes are exchanged.
    pub token_url: String,
    /// Who it is.
    pub user_url: String,
    /// The addresses, where `user_url` does not tell whether they were verified.
    pub emails_url: String,
}

impl OAuthClient {
    /// GitHub itself.
    pub fn github(id: String, secret: Secret) -> Self {
        Self {
            id,
            secret,
            authorize_url: "https://github.com/login/oauth/authorize".to_owned(),
            token_url: "https://github.com/login/oauth/access_token".to_owned(),
            user_url: "https://api.github.com/user".to_owned(),
            emails_url: "https://api.github.com/user/emails".to_owned(),
        }
    }

    /// Google itself.
    pub fn google(id: String, secret: Secret) -> Self {
        Self {
            id,
            secret,
            authorize_url: "https://accounts.google.com/o/oauth2/v2/auth".to_owned(),
            token_url: "https://oauth2.googleapis.com/token".to_owned(),
            user_url: "https://openidconnect.googleapis.com/v1/userinfo".to_owned(),
            emails_url: String::new(),
        }
    }

    /// Why these addresses cannot be used, where they cannot.
    pub fn problem(&self) -> Option<String> {
        let urls = [&self.authorize_url, &self.token_url, &self.user_url, &self.emails_url];
        let bad = urls.into_iter().find(|url| !url.is_empty() && !is_private(url))?;
        Some(format!("{bad} is neither https nor on this machine: it would be sent secrets in the clear"))
    }
}

/// True where nobody between can read: https, or http to a loopback address.
fn is_private(url: &str) -> bool {
    let Ok(url) = oauth2::url::Url::parse(url) else { return false };
    let is_loopback = match url.host() {
        Some(oauth2::url::Host::Ipv4(address)) => address.is_loopback(),
        Some(oauth2::url::Host::Ipv6(address)) => address.is_loopback(),
        _ => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback)
}

/// What is configured of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OAuth {
    /// GitHub.
    pub github: Option<OAuthClient>,
    /// Google.
    pub google: Option<OAuthClient>,
    /// Addresses of applications that logins may be handed to, each whole.
    pub redirect_uris: Vec<String>,
    /// Certificates that are trusted at providers beside the system's authorities, PEM.
    pub certificate: Option<PathBuf>,
    /// Where GitHub says whether somebody starred the platform's repository.
    pub star_url: Option<String>,
}

/// Where GitHub says whether somebody starred `repository` (`owner/name`); an error where that is no repository, or
/// the address of the API could be read by others.
pub fn star_url(api: Option<&str>, repository: &str) -> Result<String, String> {
    let part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !part.is_empty() && part.len() <= 100 && part.bytes().all(plain) && part.bytes().any(|byte| byte != b'.')
    };
    match repository.split_once('/') {
        Some((owner, name)) if part(owner) && part(name) => {}
        _ => return Err(format!("{repository} is not owner/name")),
    }
    let api = api.unwrap_or("https://api.github.com/user/starred").trim_end_matches('/');
    if !is_private(api) {
        return Err(format!("{api} is neither https nor on this machine: it would be sent secrets in the clear"));
    }
    Ok(format!("{api}/{repository}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_an_owner_and_a_name() {
        assert_eq!(star_url(None, "hoody/hoody").unwrap(), "https://api.github.com/user/starred/hoody/hoody");
        assert_eq!(star_url(Some("http://127.0.0.1:1/s/"), "a/b.c").unwrap(), "http://127.0.0.1:1/s/a/b.c");
        for bad in ["", "hoody", "a/b/c", "a/..", "../b", "a/b?c", "a /b"] {
            assert!(star_url(None, bad).is_err(), "{bad}");
        }
        assert!(star_url(Some("http://github.example"), "a/b").is_err());
    }

    #[test]
    fn secrets_go_over_tls_or_not_at_all() {
        for good in ["https://github.com/a", "http://127.0.0.1:4/a", "http://[::1]/a"] {
            assert!(is_private(good), "{good}");
        }
        for bad in
            ["http://github.com/a", "http://127.0.0.1.example.org/", "http://localhost/", "ftp://127.0.0.1/", "x"]
        {
            assert!(!is_private(bad), "{bad}");
        }
    }
}
