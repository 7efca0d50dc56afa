//! GitHub and Google: their page, the exchange of a code (authorisation code with PKCE), and who it is then.
//! Hosts are the operator's choice, so they are trusted to be right, but not to be quick, small or polite:
//! every answer has a deadline and a size, and none leads elsewhere.

use crate::{
    app::App,
    config::{Config, OAuthClient},
    error::ServiceError,
    service::account::history::Happening,
    store::mail::JobKind,
};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest, HttpResponse,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, TokenResponse, TokenUrl, basic::BasicClient, url::Url,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::OnceCell;

/// How long a provider may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of its largest answer.
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// Bytes of the longest id, name or address that is believed.
const MAX_TEXT_BYTES: usize = 255;
const MAX_URL_BYTES: usize = 2048;

/// A provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// GitHub.
    Github,
    /// Google.
    Google,
}

impl Provider {
    /// The word for it, in paths too.
    pub fn word(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Google => "google",
        }
    }

    /// Its registration; 503 where there is none.
    pub(super) fn client(self, config: &Config) -> Result<&OAuthClient, ServiceError> {
        let (client, name) = match self {
            Self::Github => (&config.oauth.github, "GitHub"),
            Self::Google => (&config.oauth.google, "Google"),
        };
        let message = || format!("signing in with {name} is not configured here: use another way, or ask the operator");
        client.as_ref().ok_or_else(|| ServiceError::Unavailable(message()))
    }

    /// The mail that says that it opens an account from now on.
    pub(super) fn linked(self) -> JobKind {
        match self {
            Self::Github => JobKind::LinkedGithub,
            Self::Google => JobKind::LinkedGoogle,
        }
    }

    pub(super) fn happening(self) -> Happening {
        match self {
            Self::Github => Happening::Github,
            Self::Google => Happening::Google,
        }
    }

    fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::Github => &["read:user", "user:email"],
            Self::Google => &["openid", "email", "profile"],
        }
    }
}

/// Who a provider says somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) provider: Provider,
    /// The provider's lasting id.
    pub(super) subject: String,
    /// Lower case; `None` where the provider has not verified one.
    pub(super) email: Option<String>,
    /// What they are called there.
    pub(super) name: Option<String>,
    pub(super) avatar_url: Option<String>,
}

/// Why a provider did not say who somebody is.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProviderError {
    #[error("read the file of oauth_certificate")]
    Certificate(#[source] std::io::Error),
    #[error("HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("provider")]
    Request(#[from] reqwest::Error),
    #[error("an answer of more than {MAX_ANSWER_BYTES} bytes")]
    Large,
    #[error("answer with status {0}")]
    Status(u16),
    #[error("answer")]
    Http(#[from] oauth2::http::Error),
    #[error("answer that is not what was asked for")]
    Json(#[from] serde_json::Error),
    #[error("configured address")]
    Address(#[from] oauth2::url::ParseError),
    #[error("exchange of the code: {0}")]
    Exchange(String),
    #[error("an id, name or address that is empty or too long")]
    Text,
}

/// The HTTP client, made when it is first needed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Providers(Arc<OnceCell<reqwest::Client>>);

impl Providers {
    /// Trusts the system's authorities and those in the file `certificate`.
    async fn client(&self, certificate: Option<&Path>) -> Result<&reqwest::Client, ProviderError> {
        let build = || async {
            let mut builder = reqwest::Client::builder()
                .user_agent("hoody-control-plane")
                .redirect(reqwest::redirect::Policy::none())
                .timeout(DEADLINE);
            if let Some(path) = certificate {
                let pem = tokio::fs::read(path).await.map_err(ProviderError::Certificate)?;
                for certificate in reqwest::Certificate::from_pem_bundle(&pem).map_err(ProviderError::Client)? {
                    builder = builder.add_root_certificate(certificate);
                }
            }
            builder.build().map_err(ProviderError::Client)
        };
        self.0.get_or_try_init(build).await
    }

    async fn send(client: reqwest::Client, request: reqwest::Request) -> Result<HttpResponse, ProviderError> {
        let mut response = client.execute(request).await?;
        let mut answer = oauth2::http::Response::builder().status(response.status().as_u16());
        if let Some(kind) = response.headers().get(reqwest::header::CONTENT_TYPE) {
            answer = answer.header(oauth2::http::header::CONTENT_TYPE, kind.as_bytes());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(ProviderError::Large);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(answer.body(body)?)
    }

    async fn ask(client: &reqwest::Client, url: &str, access_token: &str) -> Result<HttpResponse, ProviderError> {
        let request = client.get(url).bearer_auth(access_token);
        let request = request.header(reqwest::header::ACCEPT, "application/json").build()?;
        Self::send(client.clone(), request).await
    }

    async fn get<T: DeserializeOwned>(
        client: &reqwest::Client,
        url: &str,
        access_token: &str,
    ) -> Result<T, ProviderError> {
        let answer = Self::ask(client, url, access_token).await?;
        if !answer.status().is_success() {
            return Err(ProviderError::Status(answer.status().as_u16()));
        }
        Ok(serde_json::from_slice(answer.body())?)
    }

    /// Whether somebody starred a repository at GitHub: its API answers 204 or 404 without a body.
    async fn has_starred(client: &reqwest::Client, url: &str, access_token: &str) -> Result<bool, ProviderError> {
        match Self::ask(client, url, access_token).await?.status().as_u16() {
            204 => Ok(true),
            404 => Ok(false),
            other => Err(ProviderError::Status(other)),
        }
    }
}

/// Where the provider sends people back to.
fn callback_url(app: &App, provider: Provider) -> String {
    format!("{}/api/v1/auth/{}/callback", app.config.public_url.trim_end_matches('/'), provider.word())
}

/// The provider's page, which sends the browser back with `state`.
pub(super) fn page(
    app: &App,
    provider: Provider,
    client: &OAuthClient,
    state: &str,
    verifier: &str,
) -> Result<Url, ProviderError> {
    let registered = BasicClient::new(ClientId::new(client.id.clone()))
        .set_auth_uri(AuthUrl::new(client.authorize_url.clone())?)
        .set_redirect_uri(RedirectUrl::new(callback_url(app, provider))?);
    let challenge = PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier.to_owned()));
    let (url, _) = registered
        .authorize_url(|| CsrfToken::new(state.to_owned()))
        .add_scopes(provider.scopes().iter().map(|scope| Scope::new((*scope).to_owned())))
        .set_pkce_challenge(challenge)
        .url();
    Ok(url)
}

/// Exchanges the code that the browser brought, and asks who it is; with the address of a `star` also whether they
/// starred that repository.
pub(super) async fn identify(
    app: &App,
    provider: Provider,
    client: &OAuthClient,
    code: String,
    verifier: String,
    star: Option<&str>,
) -> Result<(Person, Option<bool>), ProviderError> {
    let registered = BasicClient::new(ClientId::new(client.id.clone()))
        .set_client_secret(ClientSecret::new(client.secret.reveal().to_owned()))
        .set_auth_type(AuthType::RequestBody)
        .set_token_uri(TokenUrl::new(client.token_url.clone())?)
        .set_redirect_uri(RedirectUrl::new(callback_url(app, provider))?);
    let connection = app.providers.client(app.config.oauth.certificate.as_deref()).await?;
    let http = |request: HttpRequest| {
        let connection = connection.clone();
        async move { Providers::send(connection, reqwest::Request::try_from(request)?).await }
    };
    let answer = registered
        .exchange_code(AuthorizationCode::new(code))
        .set_pkce_verifier(PkceCodeVerifier::new(verifier))
        .request_async(&http)
        .await
        .map_err(refusal)?;
    let access_token = answer.access_token().secret();
    let starred = match star {
        Some(url) => Some(Providers::has_starred(connection, url, access_token).await?),
        None => None,
    };
    let person = match provider {
        Provider::Github => {
            let user = Providers::get(connection, &client.user_url, access_token).await?;
            github(user, Providers::get(connection, &client.emails_url, access_token).await?)
        }
        Provider::Google => google(Providers::get(connection, &client.user_url, access_token).await?),
    };
    Ok((person?, starred))
}

/// What a failed exchange says; a provider's answer may hold tokens, so none of its body is kept.
fn refusal<E: std::error::Error + 'static>(
    error: oauth2::RequestTokenError<E, oauth2::basic::BasicErrorResponse>,
) -> ProviderError {
    ProviderError::Exchange(match error {
        oauth2::RequestTokenError::ServerResponse(answer) => answer.error().to_string(),
        oauth2::RequestTokenError::Request(error) => crate::error::chain(&error),
        oauth2::RequestTokenError::Parse(..) => "an answer that is no token".to_owned(),
        oauth2::RequestTokenError::Other(_) => "an answer of another kind".to_owned(),
    })
}

#[derive(Deserialize)]
struct GithubUser {
    id: u64,
    login: String,
    avatar_url: Option<String>,
}

#[derive(Deserialize)]
struct GithubEmail {
    email: String,
    primary: bool,
    verified: bool,
}

#[derive(Deserialize)]
struct GoogleUser {
    sub: String,
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
    name: Option<String>,
    picture: Option<String>,
}

fn github(user: GithubUser, emails: Vec<GithubEmail>) -> Result<Person, ProviderError> {
    let email = emails.into_iter().find(|email| email.primary && email.verified).map(|email| email.email);
    person(Provider::Github, user.id.to_string(), email, Some(user.login), user.avatar_url)
}

fn google(user: GoogleUser) -> Result<Person, ProviderError> {
    let email = user.email.filter(|_| user.email_verified);
    person(Provider::Google, user.sub, email, user.name, user.picture)
}

/// Any bytes as each answer of a provider, for fuzzing: who it names has an id, and an address only where the provider
/// says that it is verified.
pub(crate) fn fuzzing(bytes: &[u8]) {
    let _ = serde_json::from_slice::<oauth2::basic::BasicTokenResponse>(bytes);
    let _ = serde_json::from_slice::<oauth2::basic::BasicErrorResponse>(bytes);
    let mut people = Vec::new();
    if let Ok(user) = serde_json::from_slice::<GoogleUser>(bytes) {
        let verified = user.email_verified;
        people.extend(google(user).map(|person| (person, verified)));
    }
    // Both answers of GitHub, one after the other.
    let mut answers = serde_json::Deserializer::from_slice(bytes);
    if let (Ok(user), Ok(emails)) =
        (GithubUser::deserialize(&mut answers), Vec::<GithubEmail>::deserialize(&mut answers))
    {
        let verified = emails.iter().any(|email| email.verified);
        people.extend(github(user, emails).map(|person| (person, verified)));
    }
    for (person, verified) in people {
        assert!((1..=MAX_TEXT_BYTES).contains(&person.subject.len()));
        assert!(person.email.is_none() || verified);
        assert!(person.avatar_url.is_none_or(|url| url.starts_with("https://")));
    }
}

fn person(
    provider: Provider,
    subject: String,
    email: Option<String>,
    name: Option<String>,
    avatar_url: Option<String>,
) -> Result<Person, ProviderError> {
    if subject.is_empty() || subject.len() > MAX_TEXT_BYTES {
        return Err(ProviderError::Text);
    }
    let is_picture = |url: &String| url.starts_with("https://") && url.len() <= MAX_URL_BYTES;
    Ok(Person {
        provider,
        subject,
        email: email.map(|email| email.trim().to_lowercase()),
        name: name.filter(|name| name.len() <= MAX_TEXT_BYTES),
        avatar_url: avatar_url.filter(is_picture),
    })
}
