//! `admin create-user`: makes an account and prints its id. The password is read from standard input or a
//! file, never from an argument, which other users of the machine could see.

use super::super::{CliError, open};
use crate::{config::Settings, service::session};
use std::{
    fs,
    io::{self, BufRead},
    path::PathBuf,
};
use zeroize::Zeroizing;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// 3 to 50 letters, digits, - or _
    username: String,
    /// E-mail address, with which the user can also log in
    #[arg(long)]
    email: Option<String>,
    /// Read the password from the first line of standard input
    #[arg(long, required_unless_present = "password_file", conflicts_with = "password_file")]
    password_stdin: bool,
    /// Read the password from the first line of this file
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// Let the user administer the platform
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(in crate::cli) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let password = read_password(arguments.password_file.as_ref())?;
    let app = open(arguments.settings.resolve()?).await?;
    let email = arguments.email.as_deref();
    let created = session::create_user(&app, &arguments.username, email, password, arguments.admin).await;
    app.store.close().await;
    println!("{}", created?);
    Ok(())
}

fn read_password(file: Option<&PathBuf>) -> Result<Zeroizing<String>, CliError> {
    let mut line = Zeroizing::new(String::new());
    match file {
        Some(path) => {
            let failed = |source| CliError::Io { what: format!("read {}", path.display()), source };
            io::BufReader::new(fs::File::open(path).map_err(failed)?).read_line(&mut line).map_err(failed)?;
        }
        None => {
            let failed = |source| CliError::Io { what: "read standard input".to_owned(), source };
            io::stdin().lock().read_line(&mut line).map_err(failed)?;
        }
    }
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}
