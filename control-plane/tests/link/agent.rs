//! The test agent: enrols, links, takes commands and reports, all by hand.

use crate::plane::{PATIENCE, Plane};
use hoody_protocol::{
    bounded::Text,
    codec,
    container::{Cause, ContainerSpec, State, StatusReport},
    enrol::{EnrolReply, EnrolRequest, RenewRequest},
    id::{ContainerId, ServerId},
    join_token::JoinToken,
    link::{
        Heartbeat, Hello, HelloReply, InventoryEntry, NodeFacts, Refusal, Report, ReportAck, ReportBatch, ReportEntry,
    },
    operation::OperationRequest,
    stream,
    tag::Message,
    time::now_ms,
    transport::{
        self, CertificateDer, Close, Identity, NODE, NodeKey, SERVER_NAME, client_config, enrol_client_config,
        generate_node_key, signing_request,
    },
    version::{self, SpecVersion},
};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

/// A server's agent after enrolment.
#[derive(Clone)]
pub struct Agent {
    pub server: ServerId,
    pub identity: Identity,
    pub authorities: Vec<CertificateDer<'static>>,
    pub pkcs8: Vec<u8>,
}

/// A command as received, with the stream for its answer.
pub enum Command {
    Spec(Box<ContainerSpec>, SendStream),
    Operation(OperationRequest, SendStream),
}

/// A link that is up.
pub struct Link {
    pub connection: Connection,
    pub control: (SendStream, RecvStream),
    pub reports: Option<(SendStream, RecvStream)>,
    pub position: u64,
    _endpoint: Endpoint,
}

pub fn endpoint() -> Endpoint {
    Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

/// Waits, but not for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Asks for a certificate with a token, or whatever `request` is, on a connection without a certificate.
pub async fn ask_to_enrol<Q: Message>(
    address: SocketAddr,
    authority: hoody_protocol::image::Digest,
    request: &Q,
) -> Result<EnrolReply, String> {
    let endpoint = endpoint();
    let config = enrol_client_config(authority).unwrap();
    let connection = endpoint.connect_with(config, address, SERVER_NAME).unwrap().await.map_err(|e| e.to_string())?;
    let reply = stream::ask(&connection, request, PATIENCE).await.map_err(|error| error.to_string());
    Close::Done.close(&connection);
    endpoint.wait_idle().await;
    reply
}

/// Enrols with a token and a key.
pub async fn join(address: SocketAddr, token: &str, key: &NodeKey) -> Result<Agent, String> {
    let token: JoinToken = token.parse().unwrap();
    let request = EnrolRequest {
        secret: token.secret.clone(),
        csr: signing_request(key).unwrap().try_into().unwrap(),
        agent_version: Text::truncated("test"),
    };
    match ask_to_enrol(address, token.authority, &request).await? {
        EnrolReply::Issued { server, chain, authorities } => {
            let ders = |list: Vec<hoody_protocol::bounded::Bytes<_>>| {
                list.into_iter().map(|der| CertificateDer::from(der.into_inner())).collect::<Vec<_>>()
            };
            let identity = Identity::of_node(ders(chain.into_inner()), key);
            Ok(Agent { server, identity, authorities: ders(authorities.into_inner()), pkcs8: key.pkcs8().to_vec() })
        }
        EnrolReply::Refused(cause) => Err(cause.code.to_string()),
    }
}

/// A new server with an enrolled agent.
pub async fn enrolled(plane: &Plane, name: &str) -> Agent {
    let server = plane.server(name).await;
    join(plane.address, &plane.token(server).await, &generate_node_key().unwrap()).await.unwrap()
}

pub fn hello(inventory: Vec<InventoryEntry>) -> Hello {
    Hello {
        protocol: version::SUPPORTED,
        agent_version: Text::truncated("0.1.0"),
        boot_id: Text::truncated("boot"),
        instance: None,
        facts: NodeFacts {
            hostname: Text::truncated("node"),
            architecture: Text::truncated("amd64"),
            kernel: Text::truncated("6.18"),
            os: Text::truncated("Debian 12"),
            cpu_model: Text::truncated("cpu"),
            cpu_cores: 4,
            memory_bytes: 8 << 30,
            disk_bytes: 100 << 30,
            kvm: false,
        },
        inventory: inventory.try_into().unwrap(),
        journal_lost: 0,
    }
}

pub fn entry(spec: &ContainerSpec, generation: u64) -> InventoryEntry {
    InventoryEntry {
        container: spec.id,
        version: SpecVersion { epoch: spec.version.epoch, generation },
        state: State::Running,
        sequence: spec.sequence,
    }
}

impl Agent {
    pub fn key(&self) -> NodeKey {
        NodeKey::from_pkcs8(&self.pkcs8).unwrap()
    }

    pub async fn connect(&self, plane: &Plane, alpn: &'static [u8]) -> (Endpoint, Connection) {
        let config = client_config(Some(&self.identity), &self.authorities, alpn).unwrap();
        let endpoint = endpoint();
        let connecting = endpoint.connect_with(config, plane.address, SERVER_NAME).unwrap();
        let connection = soon("the handshake", connecting).await.unwrap();
        (endpoint, connection)
    }

    /// Says hello; the answer, with the link as far as it is.
    pub async fn say(&self, plane: &Plane, hello: &Hello) -> Result<(HelloReply, Link), String> {
        let (endpoint, connection) = self.connect(plane, NODE).await;
        let exchange = async {
            let (mut send, mut recv) = connection.open_bi().await.map_err(|error| error.to_string())?;
            stream::write(&mut send, hello).await.map_err(|error| error.to_string())?;
            let reply = stream::read(&mut recv).await.map_err(|error| error.to_string())?;
            Ok::<_, String>((reply, (send, recv)))
        };
        let (reply, control) = soon("the answer to the hello", exchange).await?;
        Ok((reply, Link { connection, control, reports: None, position: 0, _endpoint: endpoint }))
    }

    /// A link that must come up.
    pub async fn link(&self, plane: &Plane, inventory: Vec<InventoryEntry>) -> Link {
        let (reply, link) = self.say(plane, &hello(inventory)).await.unwrap();
        assert!(matches!(reply, HelloReply::Accepted { server, .. } if server == self.server), "{reply:?}");
        link
    }

    /// The code with which the hello is refused, and whether to try again.
    pub async fn refusal(&self, plane: &Plane, hello: &Hello) -> (String, bool) {
        match self.say(plane, hello).await.unwrap().0 {
            HelloReply::Refused { cause, retry } => (cause.code.to_string(), retry),
            accepted => panic!("{accepted:?}"),
        }
    }

    pub fn renewal(&self, key: &NodeKey) -> RenewRequest {
        RenewRequest { csr: signing_request(key).unwrap().try_into().unwrap() }
    }
}

impl Link {
    /// The next command.
    pub async fn command(&mut self) -> Command {
        let receive = async {
            let (send, mut recv) = self.connection.accept_bi().await.unwrap();
            let frame = stream::read_frame(&mut recv).await.unwrap();
            if frame.is::<ContainerSpec>() {
                Command::Spec(Box::new(frame.decode().unwrap()), send)
            } else {
                Command::Operation(frame.decode().unwrap(), send)
            }
        };
        soon("a command", receive).await
    }

    /// The next command, which must be a specification.
    pub async fn spec(&mut self) -> (ContainerSpec, SendStream) {
        match self.command().await {
            Command::Spec(spec, send) => (*spec, send),
            Command::Operation(request, _) => panic!("{request:?}"),
        }
    }

    /// The next command, which must be an operation.
    pub async fn operation(&mut self) -> (OperationRequest, SendStream) {
        match self.command().await {
            Command::Operation(request, send) => (request, send),
            Command::Spec(spec, _) => panic!("{spec:?}"),
        }
    }

    /// Sends reports on the one stream for them; the position acknowledged, or the code of the refusal.
    pub async fn report(&mut self, reports: Vec<Report>) -> Result<u64, String> {
        let entries: Vec<ReportEntry> = reports
            .into_iter()
            .map(|report| {
                self.position += 1;
                ReportEntry { position: self.position, report }
            })
            .collect();
        self.send_batch(entries).await
    }

    pub async fn send_batch(&mut self, entries: Vec<ReportEntry>) -> Result<u64, String> {
        if self.reports.is_none() {
            self.reports = Some(soon("a stream", self.connection.open_bi()).await.unwrap());
        }
        let (send, recv) = self.reports.as_mut().unwrap();
        stream::write(send, &ReportBatch { entries: entries.try_into().unwrap() }).await.unwrap();
        let frame = soon("an acknowledgement", stream::read_frame(recv)).await.unwrap();
        match frame.decode::<ReportAck>() {
            Ok(ack) => Ok(ack.position),
            Err(_) => Err(frame.decode::<Refusal>().unwrap().cause.code.to_string()),
        }
    }

    pub async fn heartbeat(&mut self) {
        stream::write(&mut self.control.0, &Heartbeat { now: now_ms(), unacknowledged: 0 }).await.unwrap();
    }

    /// Why the control plane closed the link.
    pub async fn closed(&self) -> Option<Close> {
        Close::of(&soon("the link's end", self.connection.closed()).await)
    }

    /// Writes raw bytes on a new stream and reads the answering refusal's code.
    pub async fn refused_bytes(&self, bytes: &[u8]) -> String {
        let (mut send, mut recv) = soon("a stream", self.connection.open_bi()).await.unwrap();
        send.write_all(bytes).await.unwrap();
        let _ = send.finish();
        let refusal: Refusal = soon("a refusal", stream::read(&mut recv)).await.unwrap();
        refusal.cause.code.to_string()
    }
}

pub async fn answer<M: Message>(send: &mut SendStream, message: &M) {
    stream::write(send, message).await.unwrap();
    let _ = send.finish();
}

pub fn status(container: ContainerId, generation: u64, state: State) -> StatusReport {
    StatusReport {
        container,
        version: SpecVersion { epoch: 1, generation },
        state,
        converged: true,
        cause: None,
        exit_code: None,
        address: None,
        started_at: None,
        firewall_error: None,
        limits_error: None,
        ssh_key_error: None,
        oom_kills: 0,
        egress: None,
        share_failures: Default::default(),
        at: now_ms(),
    }
}

pub fn failed(container: ContainerId, generation: u64, code: &str) -> StatusReport {
    let cause = Some(Cause::new(code, "it did not work"));
    StatusReport { cause, converged: false, ..status(container, generation, State::Failed) }
}

/// Writes these bytes again and again until nobody takes more: no more than `most`, which is what the windows on the way
/// hold.
pub async fn fill(send: &mut SendStream, bytes: &[u8], most: usize) {
    const STANDS_STILL: Duration = Duration::from_millis(500);
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(STANDS_STILL, send.write(&bytes[sent % bytes.len()..])).await {
        sent += written.unwrap();
        assert!(sent <= most, "{sent} bytes are on their way to somebody who takes none");
    }
}

/// A frame's bytes.
pub fn frame<M: Message>(message: &M) -> Vec<u8> {
    codec::encode(message)
}

/// An identity that an authority of the test's own issued.
pub fn foreign(server: ServerId) -> Identity {
    let authority = transport::Authority::create(std::time::SystemTime::now()).unwrap();
    let key = generate_node_key().unwrap();
    let chain = authority.issue_node(server, &key.public_key(), std::time::SystemTime::now()).unwrap();
    Identity::of_node(chain, &key)
}
