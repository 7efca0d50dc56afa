//! Signing in with GitHub and Google.

use super::Secret;

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
}

#[cfg(test)]
mod tests {
    use super::*;

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
