//! Packets to a container, from the outside of its server.

use crate::{cluster::Server, wait};
use anyhow::{Context, Result, ensure};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::MetadataExt,
    time::Duration,
};

/// This long without an answer counts as unreachable.
const SILENCE: Duration = Duration::from_millis(400);
const DEADLINE: Duration = Duration::from_secs(20);

/// A web server inside a container.
#[derive(Debug, Clone)]
pub struct Web {
    /// Where it is.
    pub address: SocketAddr,
    page: String,
}

impl Web {
    /// A web server that is not in a container.
    pub fn at(address: SocketAddr, page: &str) -> Self {
        Self { address, page: page.to_owned() }
    }

    /// What its page says.
    pub fn page(&self) -> &str {
        &self.page
    }
}

/// The container's address, as its server knows it.
pub fn address(server: &Server, container: &str) -> Result<Ipv4Addr> {
    let status = server.status()?;
    let rows = status["containers"].as_array().context("no containers in the status")?;
    let row = rows.iter().find(|row| row[0] == container).context("the server does not know the container")?;
    Ok(row[1]["address"].as_str().context("no address")?.parse()?)
}

/// Runs a web server in a container.
pub fn web(server: &Server, container: &str, port: u16, page: &str) -> Result<Web> {
    server.exec(container, &["sh", "-c", &format!("mkdir -p /srv/www && echo '{page}' > /srv/www/index.html")])?;
    // It goes to the background by itself, as a child of the container's init, which collects it at the end.
    server.exec(container, &["busybox", "httpd", "-p", &port.to_string(), "-h", "/srv/www"])?;
    Ok(Web { address: SocketAddr::from((address(server, container)?, port)), page: page.to_owned() })
}

/// The page, where it is served.
pub fn fetch(web: &Web) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&web.address, SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// Fails where the page is not served (or served, where that is expected) at this moment.
pub fn answers_now(web: &Web, expected: bool) -> Result<()> {
    let fetched = fetch(web);
    let served = fetched.as_ref().is_ok_and(|page| page.contains(&web.page));
    ensure!(
        served == expected,
        "expected {}an answer from {}: {fetched:?}",
        if expected { "" } else { "no " },
        web.address
    );
    Ok(())
}

/// Waits until the page is served (or not).
pub async fn answers(web: &Web, expected: bool) -> Result<String> {
    wait::until(if expected { "the page is served" } else { "nothing answers" }, DEADLINE, async || {
        let web = web.clone();
        let (fetched, web) = tokio::task::spawn_blocking(move || (fetch(&web), web)).await?;
        let served = fetched.as_ref().is_ok_and(|page| page.contains(&web.page));
        Ok((served == expected).then(|| match fetched {
            Ok(page) => page.lines().last().unwrap_or_default().to_owned(),
            Err(error) => error.to_string(),
        }))
    })
    .await
}

/// The user that a process runs as, on the server.
pub fn uid_of(pid: i32) -> Result<u32> {
    Ok(std::fs::metadata(format!("/proc/{pid}"))?.uid())
}
