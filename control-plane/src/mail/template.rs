//! What mails say, as text and as HTML. Nothing that a stranger wrote stands in them, so nothing has to be
//! escaped; everything is ASCII in short lines, so tokens arrive unbroken.

/// A mail's subject and both its forms.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// The subject.
    pub subject: &'static str,
    /// For readers without HTML.
    pub text: String,
    /// For the others.
    pub html: String,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// The mail that verifies an address. `source` is where the sign-up came from and when, as text.
pub fn verification(web_url: Option<&str>, token: &str, source: &str) -> Content {
    with_token(
        "Verify your e-mail address",
        &format!(
            "Somebody, hopefully you, signed up for Hoody with this address,\nfrom {source},\nand chose a password there."
        ),
        "To finish, use this token within 24 hours:",
        web_url.map(|url| format!("{url}/verify-email?token=")),
        token,
        "If that was not you, do not use it: the account would have\ntheir password. Without the token there is no account, and\n\
         if you sign up yourself, your own mail ends theirs.",
    )
}

/// The mail that says that a provider opens the account from now on. `time` is when that was.
pub fn linked(provider: &str, time: &str) -> Content {
    let lines = [
        format!(
            "{provider} opens your Hoody account from now on,\nbecause it has verified this address for somebody\nwho signed in with it at {time}."
        ),
        "If that was you, there is nothing to do.".to_owned(),
        format!("If it was not, choose a new password here and at {provider},\nand tell the operator."),
    ];
    Content {
        subject: "Another way into your account",
        text: lines.join("\n\n") + "\n",
        html: page(&lines.map(|line| format!("<p>{line}</p>")).join("\n")),
    }
}

/// The mail that gives a new password.
pub fn reset(web_url: Option<&str>, token: &str) -> Content {
    with_token(
        "Choose a new password",
        "Somebody, hopefully you, asked for a new password for your Hoody account.",
        "To choose one, use this token within one hour:",
        web_url.map(|url| format!("{url}/reset-password?token=")),
        token,
        "If that was not you, do nothing: your password stays as it is.",
    )
}

/// What the owner of an address gets when somebody signs up with it again.
pub fn already_registered() -> Content {
    let lines = [
        "Somebody, hopefully you, tried to sign up for Hoody with this address.",
        "You already have an account: log in with it.",
        "If you forgot the password, ask for a new one.",
        "If that was not you, do nothing: nothing has changed.",
    ];
    Content {
        subject: "You already have an account",
        text: lines.join("\n\n") + "\n",
        html: page(&lines.map(|line| format!("<p>{line}</p>")).join("\n")),
    }
}

fn with_token(
    subject: &'static str,
    what: &str,
    how: &str,
    link: Option<String>,
    token: &str,
    otherwise: &str,
) -> Content {
    let (text, html) = match link {
        Some(link) => (format!("{link}{token}"), format!("<a href=\"{link}{token}\">\n{subject}</a>")),
        None => (token.to_owned(), format!("<code>\n{token}\n</code>")),
    };
    Content {
        subject,
        text: format!("{what}\n\n{how}\n\n{text}\n\n{otherwise}\n"),
        html: page(&format!("<p>{what}</p>\n<p>{how}</p>\n<p>{html}</p>\n<p>{otherwise}</p>")),
    }
}

fn page(body: &str) -> String {
    format!("<!DOCTYPE html>\n<html lang=\"en\">\n<body>\n{body}\n</body>\n</html>\n")
}
