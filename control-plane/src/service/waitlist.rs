//! The waitlist. Who waits shows nowhere: every valid request gets the same answer.

use super::account::policy::{self, Problems};
use crate::{
    app::App,
    error::ServiceError,
    store::waitlist::{self as store, Details},
};

/// Kinds of organisation.
const CONTEXTS: &[&str] = &["individual", "startup", "medium", "enterprise", "academic", ""];
/// Lines of business.
const INDUSTRIES: &[&str] = &[
    "softdev",
    "saas",
    "paas",
    "cloud",
    "ai-ml",
    "datasci",
    "cyber",
    "devops",
    "gamedev",
    "ecom",
    "fintech",
    "healthtech",
    "edtech",
    "agritech",
    "marketing",
    "consulting",
    "telecom",
    "iot",
    "blockchain",
    "arvr",
    "robotics",
    "research",
    "freelance",
    "techstartup",
    "enterprise-sw",
    "opensource",
    "other-tech",
    "other-nontech",
    "",
];
/// What people want to do.
const INTERESTS: &[&str] = &["dev", "ai", "saas", "security", "creative", "productivity", "it", "other", ""];
/// Their work.
const ROLES: &[&str] = &[
    "lead",
    "manager",
    "director",
    "exec",
    "founder",
    "engineer",
    "devops",
    "ml",
    "security",
    "consultant",
    "student",
    "researcher",
    "other",
    "",
];

fn address(email: &str, problems: &mut Problems) -> String {
    let email = email.trim().to_lowercase();
    policy::email(&email, problems);
    email
}

/// Adds an address; gives it as it is kept.
pub async fn join(app: &App, email: &str) -> Result<String, ServiceError> {
    let mut problems = Problems::new();
    let email = address(email, &mut problems);
    policy::none_of(problems)?;
    store::join(&app.store, &email).await?;
    Ok(email)
}

/// Adds what somebody says about themselves, if the address waits.
pub async fn enrich(app: &App, email: &str, details: Details) -> Result<String, ServiceError> {
    let mut problems = Problems::new();
    let email = address(email, &mut problems);
    let fields = [
        ("context", &details.context, CONTEXTS),
        ("industry", &details.industry, INDUSTRIES),
        ("interest", &details.interest, INTERESTS),
        ("role", &details.role, ROLES),
    ];
    for (field, value, allowed) in fields {
        if value.as_deref().is_some_and(|value| !allowed.contains(&value)) {
            problems.insert(
                field.to_owned(),
                format!("must be one of {}, or empty", allowed.join(", ").trim_end_matches(", ")),
            );
        }
    }
    policy::none_of(problems)?;
    store::enrich(&app.store, &email, &details).await?;
    Ok(email)
}
