//! Certificates that are accepted and the words for those that are not.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn roots(&self) -> Roots {
        Roots::Only(vec![self.0.der().clone()])
    }

    /// A TLS server for `name` whose certificate holds from one year to another.
    async fn server(&self, name: &str, years: std::ops::Range<i32>, script: Vec<Act>) -> Server {
        self.server_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), name, years, script)
    }

    pub(super) fn server_on(
        &self,
        listener: TcpListener,
        name: &str,
        years: std::ops::Range<i32>,
        script: Vec<Act>,
    ) -> Server {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Log::default()));
        let server = Server { address, log: Arc::clone(&log) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                log.lock().connections += 1;
                let (acceptor, script, log) = (acceptor.clone(), script.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        assert_eq!(stream.get_ref().1.server_name(), Some("dl.example"));
                        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
                        follow(stream, script, log).await;
                    }
                });
            }
        });
        server
    }
}

fn secure(server: &Server) -> FetchRequest {
    secure_at(server.address)
}

pub(super) fn secure_at(server: SocketAddr) -> FetchRequest {
    let origin = Origin { scheme: Scheme::Https, host: "dl.example".into(), port: 443 };
    let mut request = get(origin, "/x");
    let address = Some(server.to_string().into());
    request.policy = Arc::new(Policy { address, ..private_policy() });
    request
}

async fn fault(authority: &Authority, server: &Server) -> TlsFault {
    let upstream = upstream_with(patient(), Names::default(), authority.roots());
    match fetch(&upstream, secure(server)).await.unwrap_err() {
        FetchError::TlsFailed { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_trusted_server_is_spoken_to_and_its_connection_used_again() {
    let authority = Authority::new("ca");
    let script = vec![Act::Send(ok("one")), Act::Send(ok("two"))];
    let server = authority.server("dl.example", 2000..2200, script).await;
    let upstream = upstream_with(patient(), Names::default(), authority.roots());
    assert_eq!(text(&upstream, secure(&server)).await, "one");
    assert_eq!(text(&upstream, secure(&server)).await, "two");
    assert_eq!(server.connections(), 1);
    assert!(server.requests()[0].contains("\r\nhost: dl.example\r\n"));
}

#[tokio::test]
async fn faults_of_certificates_have_names() {
    let authority = Authority::new("ca");
    let script = vec![Act::Send(ok("never"))];
    let wrong_name = authority.server("other.example", 2000..2200, script.clone()).await;
    assert_eq!(fault(&authority, &wrong_name).await, TlsFault::WrongName);
    let expired = authority.server("dl.example", 2000..2001, script.clone()).await;
    assert_eq!(fault(&authority, &expired).await, TlsFault::Expired);
    let early = authority.server("dl.example", 2190..2200, script.clone()).await;
    assert_eq!(fault(&authority, &early).await, TlsFault::NotYetValid);
    let stranger = Authority::new("stranger").server("dl.example", 2000..2200, script).await;
    assert_eq!(fault(&authority, &stranger).await, TlsFault::UnknownIssuer);
    assert!(stranger.requests().is_empty());
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_named_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        drop(stream);
    });
    let server = Server { address, log: Arc::default() };
    let authority = Authority::new("ca");
    assert!(matches!(fault(&authority, &server).await, TlsFault::Protocol(_)));
    assert_eq!(fault(&authority, &server).await, TlsFault::Disconnected);
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_refused() {
    let plain = Server::always(vec![Act::Send(ok("never"))]).await;
    let answer = format!("HTTP/1.1 301 X\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n", plain.address);
    let authority = Authority::new("ca");
    let server = authority.server("dl.example", 2000..2200, vec![Act::Send(answer)]).await;
    let upstream = upstream_with(patient(), Names::default(), authority.roots());
    let error = upstream.fetch(secure(&server), &Allowed(vec![plain.origin()])).await.unwrap_err();
    assert!(matches!(error, FetchError::RedirectRefused { why: RedirectRefusal::Downgrade, .. }), "{error}");
    assert_eq!(plain.connections(), 0);
}

#[tokio::test]
async fn a_connection_that_ends_without_a_close_notify_was_cut() {
    let authority = Authority::new("ca");
    let upstream = upstream_with(patient(), Names::default(), authority.roots());
    let (open_end, cut) = ("HTTP/1.1 200 OK\r\n\r\nabc", Some(BodyError::Cut { received: 3 }));
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    for (act, expected) in [
        (Act::SendAndClose(open_end.into()), None),
        (Act::SendAndDrop(open_end.into()), cut),
        (Act::SendAndClose(length.into()), cut),
    ] {
        let server = authority.server("dl.example", 2000..2200, vec![act]).await;
        let mut response = fetch(&upstream, secure(&server)).await.unwrap();
        assert_eq!(read(&mut response.body).await, ("abc".to_owned(), expected));
        assert_eq!(response.body.ended_by_close(), expected.is_none());
    }
}
