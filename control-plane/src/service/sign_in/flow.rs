//! Somebody at a provider's page: out with a state that only this browser can bring back, and back with a code.
//!
//! The browser keeps a secret in a cookie. Its hash is stored with the state, and it is the proof key (PKCE)
//! towards the provider: whoever brings the state without the cookie is another browser, and has no use for the
//! code either. What comes of it goes to an application as a code ([`super::intent`]) or lets a device in.

use super::{
    Entered, Login, Provider, Purpose, admit, device,
    intent::{self, check_redirect},
    person::{self, Refusal},
    pkce, provider,
};
use crate::{
    app::App,
    caller::Origin,
    error::{ServiceError, chain},
    service::{
        account::policy::{self, Problems},
        free_tier, one_time, two_factor,
    },
    store::{StoreError, grant::GrantKind},
};
use oauth2::url::Url;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long somebody may take at a provider's page.
pub const LIFETIME: Duration = Duration::from_secs(10 * 60);
/// How long the address of another window is valid.
const LAUNCH_LIFETIME: Duration = Duration::from_secs(60);
/// Characters of the state that name the browser's cookie, so that several windows do not disturb each other.
const COOKIE_CHARS: usize = 16;
const NO_LAUNCH: &str = "is not known, was used or has expired: begin again in the application";
const NO_STATE: &str = "is not known, was used, has expired, or belongs to another browser: begin again";

/// What the application at `redirect_uri` wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Application {
    /// Where the code goes.
    pub redirect_uri: String,
    /// What its verifier hashes to.
    pub code_challenge: String,
    /// Given back with the code.
    pub state: Option<String>,
    /// Hash of an invite code for a new account.
    pub invite_hash: Option<String>,
    /// Whether they starred the platform's repository is asked at GitHub and told with the code.
    #[serde(default)]
    pub star_check: bool,
}

impl Application {
    /// Checks what an application sent.
    pub fn check(
        app: &App,
        redirect_uri: String,
        code_challenge: String,
        state: Option<String>,
        invite_code: Option<String>,
        mut problems: Problems,
    ) -> Result<Self, ServiceError> {
        pkce::check_challenge(&code_challenge, &mut problems);
        check_redirect(app, &redirect_uri, &mut problems);
        free_tier::check_code("invite_code", invite_code.as_deref(), &mut problems);
        policy::none_of(problems)?;
        let invite_hash = invite_code.as_deref().map(free_tier::code_hash);
        Ok(Self { redirect_uri, code_challenge, state, invite_hash, star_check: false })
    }

    /// The same, and whether they starred the platform's repository is asked as well; 503 where none is set.
    pub fn checking_star(self, app: &App) -> Result<Self, ServiceError> {
        star_url(app)?;
        Ok(Self { star_check: true, ..self })
    }

    /// Its address with these parameters, and its state.
    fn back(&self, parameters: &[(&str, &str)]) -> Result<String, ServiceError> {
        let mut url = Url::parse(&self.redirect_uri).map_err(ServiceError::internal)?;
        url.query_pairs_mut().extend_pairs(parameters).extend_pairs(self.state.iter().map(|state| ("state", state)));
        Ok(url.into())
    }
}

/// Where GitHub says whether somebody starred the platform's repository; 503 where none is set.
fn star_url(app: &App) -> Result<&str, ServiceError> {
    let none = "no repository is set here that could be starred: leave intent out to sign in";
    app.config.oauth.star_url.as_deref().ok_or_else(|| ServiceError::Unavailable(none.to_owned()))
}

/// The address of an application with a code for it.
pub fn with_code(redirect_uri: &str, code: &str) -> Result<String, ServiceError> {
    let mut url = Url::parse(redirect_uri).map_err(ServiceError::internal)?;
    url.query_pairs_mut().append_pair("code", code);
    Ok(url.into())
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Target {
    Application(Application),
    Device(String),
}

#[derive(Serialize, Deserialize)]
struct FlowContent {
    provider: Provider,
    browser_hash: String,
    client: Option<String>,
    target: Target,
}

#[derive(Serialize, Deserialize)]
struct LaunchContent {
    provider: Provider,
    client: Option<String>,
    application: Application,
}

/// Where the browser goes, and what it keeps.
#[derive(Debug)]
pub struct Departure {
    /// The provider's page.
    pub url: String,
    /// The cookie's name.
    pub cookie: String,
    /// Its value.
    pub secret: Zeroizing<String>,
}

/// Where the browser goes that came back.
#[derive(Debug)]
pub enum Arrival {
    /// To the application, with a code or an error.
    Application(String),
    /// To the page for devices: the device is let in.
    DeviceApproved,
    /// To the page for devices: a code of the second factor is needed.
    DeviceNeedsCode(two_factor::Challenge),
    /// To the page for devices: why not.
    DeviceRefused(String),
}

/// The name of the cookie that goes with a state.
pub fn cookie(state: &str) -> String {
    format!("hoody_sign_in_{}", state.chars().take(COOKIE_CHARS).collect::<String>())
}

/// Sends a browser to the provider for an application.
pub async fn begin(
    app: &App,
    provider: Provider,
    application: Application,
    client: Option<String>,
) -> Result<Departure, ServiceError> {
    depart(app, provider, Target::Application(application), client).await
}

/// Sends a browser to the provider for the ticket's device.
pub async fn begin_device(app: &App, provider: Provider, ticket: &str) -> Result<Departure, ServiceError> {
    provider.client(&app.config)?;
    let id = device::of_ticket(app, ticket).await?;
    depart(app, provider, Target::Device(id), None).await
}

/// A ticket with which another window can be opened at the provider.
pub async fn launch(
    app: &App,
    provider: Provider,
    application: Application,
    client: Option<String>,
) -> Result<Zeroizing<String>, ServiceError> {
    provider.client(&app.config)?;
    let mut tx = app.store.begin().await?;
    let content = LaunchContent { provider, client, application };
    let (ticket, _) = intent::give(&mut tx, GrantKind::Launch, None, &content, LAUNCH_LIFETIME).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(ticket)
}

/// Sends the other window's browser to the provider.
pub async fn start_launch(app: &App, ticket: &str) -> Result<Departure, ServiceError> {
    let taken = intent::take::<LaunchContent>(app, GrantKind::Launch, ticket).await?;
    let (_, content) = taken.ok_or_else(|| ServiceError::invalid("ticket", NO_LAUNCH))?;
    depart(app, content.provider, Target::Application(content.application), content.client).await
}

async fn depart(
    app: &App,
    provider: Provider,
    target: Target,
    client: Option<String>,
) -> Result<Departure, ServiceError> {
    let registered = provider.client(&app.config)?;
    let secret = one_time::token();
    let content = FlowContent { provider, browser_hash: one_time::hash(&secret), client, target };
    let mut tx = app.store.begin().await?;
    let (state, _) = intent::give(&mut tx, GrantKind::Flow, None, &content, LIFETIME).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let url = provider::page(app, provider, registered, &state, &secret).map_err(ServiceError::internal)?;
    Ok(Departure { url: url.into(), cookie: cookie(&state), secret })
}

/// What the provider's page sent the browser back with.
#[derive(Debug)]
pub struct Answer<'a> {
    /// What it was sent out with.
    pub state: &'a str,
    /// The browser's secret, from its cookie.
    pub secret: Option<&'a str>,
    /// The provider's code.
    pub code: Option<String>,
    /// Or why there is none.
    pub error: Option<String>,
}

/// Takes a browser back from the provider.
pub async fn finish(
    app: &App,
    provider: Provider,
    answer: Answer<'_>,
    origin: &Origin,
) -> Result<Arrival, ServiceError> {
    let registered = provider.client(&app.config)?;
    let unknown = || ServiceError::invalid("state", NO_STATE);
    // The cookie first: another browser must not use up the state.
    let secret = answer.secret.ok_or_else(unknown)?;
    let taken = intent::take::<FlowContent>(app, GrantKind::Flow, answer.state).await?;
    let (_, flow) = taken.ok_or_else(unknown)?;
    if flow.provider != provider || flow.browser_hash != one_time::hash(secret) {
        return Err(unknown());
    }
    let origin = origin.clone().named(flow.client.clone());
    let Some(code) = answer.code.filter(|_| answer.error.is_none()) else {
        let refused = answer.error.as_deref() == Some("access_denied");
        let (error, text) = match refused {
            true => ("access_denied", "you did not agree at the provider"),
            false => ("server_error", "the provider reported an error: try again later"),
        };
        return flow.target.refuse(error, text);
    };
    let star = match &flow.target {
        Target::Application(application) if application.star_check => Some(star_url(app)?),
        _ => None,
    };
    let (person, starred) = match provider::identify(app, provider, registered, code, secret.to_owned(), star).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(provider = provider.word(), error = chain(&error), "a provider did not say who signs in");
            return flow.target.refuse("server_error", "the provider did not confirm the sign-in: try again");
        }
    };
    let invite_hash = match &flow.target {
        Target::Application(application) => application.invite_hash.as_deref(),
        Target::Device(_) => None,
    };
    let user = match person::account(app, &person, invite_hash, &origin).await? {
        Ok(user) => user,
        Err(refusal) => {
            let (error, text) = told(refusal);
            return flow.target.refuse(error, text);
        }
    };
    match flow.target {
        Target::Application(application) => {
            let mut tx = app.store.begin().await?;
            let (challenge, uri) = (&application.code_challenge, &application.redirect_uri);
            let code = intent::code(&mut tx, &user, challenge, uri, provider.happening(), false).await?;
            if starred == Some(true) {
                crate::store::free_tier::unlock(&mut tx, user.id, "github_star").await?;
            }
            tx.commit().await.map_err(StoreError::from)?;
            let mut parameters = vec![("code", code.as_str())];
            parameters.extend(starred.map(|starred| ("starred", if starred { "true" } else { "false" })));
            Ok(Arrival::Application(application.back(&parameters)?))
        }
        Target::Device(id) => match admit(app, user, &Purpose::Device(id), provider.happening(), &origin).await {
            Ok(Login::Done(Entered::Device)) => Ok(Arrival::DeviceApproved),
            Ok(Login::NeedsCode(challenge)) => Ok(Arrival::DeviceNeedsCode(challenge)),
            Ok(Login::Done(_)) => Err(ServiceError::Conflict("the sign-in was for something else".to_owned())),
            Err(ServiceError::Conflict(text)) => Ok(Arrival::DeviceRefused(text)),
            Err(error) => Err(error),
        },
    }
}

impl Target {
    fn refuse(self, error: &str, text: &str) -> Result<Arrival, ServiceError> {
        match self {
            Self::Application(application) => {
                Ok(Arrival::Application(application.back(&[("error", error), ("error_description", text)])?))
            }
            Self::Device(_) => Ok(Arrival::DeviceRefused(text.to_owned())),
        }
    }
}

/// An error's word (RFC 6749, section 4.1.2.1, where it has one) and sentence.
fn told(refusal: Refusal) -> (&'static str, &'static str) {
    match refusal {
        Refusal::NoAddress => {
            ("email_not_verified", "the provider has not verified an address of yours: verify it there first")
        }
        Refusal::Unverified => {
            ("account_exists", "an account with your address has not verified it: sign in with its password")
        }
        Refusal::Banned => ("access_denied", "this account is banned"),
    }
}
