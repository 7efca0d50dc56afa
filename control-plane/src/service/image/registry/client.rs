//! Asking a registry over HTTP: checked addresses, redirections followed by hand, bounded answers.

use super::{
    auth::{self, Credentials},
    dial::{self, Dialing, Resolver},
    error::PullError,
    pace,
    reference::Reference,
};
use crate::config::Registries;
use hoody_protocol::address::DialRules;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RANGE},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Mutex;

/// Time for a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Longest pause within an answer.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// Time for a whole document.
const DOCUMENT_DEADLINE: Duration = Duration::from_secs(60);
/// Time for a whole pull.
const PULL_DEADLINE: Duration = Duration::from_secs(3600);
/// Time for all documents of a pull.
const FIND_DEADLINE: Duration = Duration::from_secs(300);
/// Redirections of one request.
const MAX_REDIRECTS: usize = 5;

/// Speaks with registries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    client: Client,
    pub(super) dialing: Dialing,
    pub(super) patience: Patience,
}

/// How long registries are waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a whole pull.
    pub(super) pull: Duration,
    /// For all its documents.
    pub(super) find: Duration,
    /// For a part of a layer: see [`pace`].
    pub(super) stall: Duration,
}

impl Registry {
    /// With the operator's settings; `own` are the platform's addresses.
    pub async fn new(settings: &Registries, own: Vec<ipnet::IpNet>) -> Result<Self, PullError> {
        let rules = Arc::new(DialRules { allowed: settings.allowed_networks.clone(), own });
        let mut builder = Client::builder()
            .user_agent("hoody-control-plane")
            // Both would decide for themselves where to go.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(Resolver(rules.clone())))
            .connect_timeout(CONNECT_DEADLINE)
            .read_timeout(READ_DEADLINE);
        if let Some(path) = &settings.certificate {
            let pem = tokio::fs::read(path).await.map_err(PullError::Certificate)?;
            for certificate in reqwest::Certificate::from_pem_bundle(&pem).map_err(PullError::Client)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let client = builder.build().map_err(PullError::Client)?;
        let patience = Patience { pull: PULL_DEADLINE, find: FIND_DEADLINE, stall: pace::STALL };
        Ok(Self { client, dialing: Dialing { rules, plain: settings.plain_http.clone().into() }, patience })
    }

    /// Asks one URL, which was checked.
    pub(super) async fn send(
        &self,
        url: Url,
        authorization: Option<HeaderValue>,
        accept: Option<&'static str>,
        from: Option<u64>,
    ) -> Result<Response, PullError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut request = self.client.get(url);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(types) = accept {
            request = request.header(ACCEPT, types);
        }
        if let Some(offset) = from {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        request.send().await.map_err(|error| dial::failed(&host, error))
    }

    /// The whole of an answer of at most `max` bytes.
    pub(super) async fn body(&self, mut response: Response, what: &str, max: u64) -> Result<Vec<u8>, PullError> {
        let host = response.url().host_str().unwrap_or_default().to_owned();
        let read = async {
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| dial::failed(&host, error))? {
                if (body.len() + chunk.len()) as u64 > max {
                    return Err(PullError::Large { what: what.to_owned(), max });
                }
                body.extend_from_slice(&chunk);
            }
            Ok(body)
        };
        tokio::time::timeout(DOCUMENT_DEADLINE, read).await.map_err(|_| PullError::Slow(DOCUMENT_DEADLINE.as_secs()))?
    }
}

/// One image's conversation with its registry.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) registry: Registry,
    pub(super) reference: Reference,
    pub(super) credentials: Option<Credentials>,
    base: Url,
    /// What the registry took last.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Session {
    /// Nothing is asked yet.
    pub(super) fn new(
        registry: Registry,
        reference: Reference,
        credentials: Option<Credentials>,
    ) -> Result<Self, PullError> {
        let base = registry.dialing.base(reference.api_host())?;
        Ok(Self { registry, reference, credentials, base, authorization: Mutex::default() })
    }

    /// `manifests/…` or `blobs/…` of the repository, from an offset where one is given.
    pub(super) async fn get(
        &self,
        path: &str,
        accept: Option<&'static str>,
        from: Option<u64>,
    ) -> Result<Response, PullError> {
        let text = format!("{}/{path}", self.reference.repository());
        let url = self.base.join(&text).map_err(|_| PullError::Scheme(text))?;
        let mut authorization = self.authorization.lock().await.clone();
        let mut asked_again = false;
        loop {
            let response = self.follow(url.clone(), authorization.clone(), accept, from).await?;
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
                // A token's time may have passed, so also where there was one. Who we were sent on to asks in vain.
                StatusCode::UNAUTHORIZED if !asked_again && response.url().origin() == self.base.origin() => {
                    asked_again = true;
                    authorization = Some(auth::answer(self, &response).await?);
                    self.authorization.lock().await.clone_from(&authorization);
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(PullError::Denied(self.reference.clone()));
                }
                StatusCode::NOT_FOUND => {
                    return Err(PullError::NotFound(format!("{} ({path})", self.reference)));
                }
                status => return Err(PullError::Status { what: path.to_owned(), status: status.as_u16() }),
            }
        }
    }

    /// A document of at most `max` bytes, and its media type.
    pub(super) async fn document(
        &self,
        path: &str,
        accept: Option<&'static str>,
        max: u64,
    ) -> Result<(Vec<u8>, String), PullError> {
        let response = self.get(path, accept, None).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        Ok((self.registry.body(response, path, max).await?, kind))
    }

    /// Goes where the registry sends us, as long as that is a place to go to. What lets us in is for the registry
    /// alone.
    async fn follow(
        &self,
        url: Url,
        authorization: Option<HeaderValue>,
        accept: Option<&'static str>,
        from: Option<u64>,
    ) -> Result<Response, PullError> {
        let mut url = url;
        for _ in 0..=MAX_REDIRECTS {
            self.registry.dialing.check(&url)?;
            let ours = url.origin() == self.base.origin();
            let authorization = authorization.clone().filter(|_| ours);
            let response = self.registry.send(url.clone(), authorization, accept, from).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let target = target.ok_or(PullError::Redirects(MAX_REDIRECTS))?;
            url = url.join(target).map_err(|_| PullError::Redirects(MAX_REDIRECTS))?;
        }
        Err(PullError::Redirects(MAX_REDIRECTS))
    }
}
