//! Admission and the accept loop on real sockets.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::service_fn;

use super::*;
use crate::content::AccessList;
use crate::serve::settings::{Limits, ProxyProtocol};
use crate::serve::tls::ClientName;
use crate::shutdown::Drain;
use crate::telemetry::Metrics;

const NEVER: Duration = Duration::from_secs(30);

struct Rig {
    address: SocketAddr,
    context: Arc<WireContext>,
}

impl Rig {
    fn new(clients: AccessList, limits: Limits, sockets: usize) -> Self {
        let (names, trusted_proxies) = (Vec::new(), Vec::new());
        let rules = AdmissionRules { clients, names, trusted_proxies, proxy_protocol: ProxyProtocol::None };
        Self::with(rules, limits, sockets)
    }

    fn with(rules: AdmissionRules, limits: Limits, sockets: usize) -> Self {
        let context = Arc::new(WireContext::new(limits, Arc::new(Metrics::new().unwrap()), Drain::new()));
        let budget = DescriptorBudget { sockets, files: 10, reserve: 10 };
        let admission = Admission::new(rules, budget, Arc::clone(&context));
        let listener = bind(&["127.0.0.1:0".parse().unwrap()], &mut Inherited::default()).unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        let service = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"served"))))
        });
        tokio::spawn(accept(listener, admission, None, service));
        Self { address, context }
    }

    async fn ask(&self) -> (TcpStream, String) {
        self.ask_behind(b"").await
    }

    async fn ask_behind(&self, header: &[u8]) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(&[header, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).await.unwrap();
        let mut head = Vec::new();
        while !head.windows(4).any(|w| w == b"\r\n\r\n") {
            let read = stream.read_buf(&mut head);
            assert!(tokio::time::timeout(NEVER, read).await.unwrap().unwrap() > 0, "{}", head.escape_ascii());
        }
        (stream, String::from_utf8(head).unwrap())
    }

    fn limited(&self, reason: &str) -> u64 {
        self.context.metrics().limited.with_label_values(&[reason]).get()
    }
}

#[tokio::test]
async fn a_client_outside_the_allow_list_gets_403() {
    let rig = Rig::new(AccessList::Networks(vec!["192.0.2.0/24".parse().unwrap()]), Limits::default(), 100);
    let (_stream, head) = rig.ask().await;
    assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("\r\nConnection: close\r\n"), "{head}");
    assert_eq!(rig.limited("clients"), 1);
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_gets_them_back() {
    let limits = Limits { connections_per_client: 2, ..Limits::default() };
    let rig = Rig::new(AccessList::private(), limits, 100);
    let (first, head) = rig.ask().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let (_second, head) = rig.ask().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let (_third, head) = rig.ask().await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nRetry-After: 1\r\n"), "{head}");
    assert_eq!(rig.limited("connections_per_client"), 1);
    drop(first);
    let again = async {
        while !rig.ask().await.1.starts_with("HTTP/1.1 200 ") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(NEVER, again).await.unwrap();
}

#[tokio::test]
async fn beyond_the_socket_budget_the_answer_is_503() {
    let rig = Rig::new(AccessList::Any, Limits::default(), 1);
    let (_first, head) = rig.ask().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let (_second, head) = rig.ask().await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nContent-Length: 0\r\n"), "{head}");
    assert_eq!(rig.limited("descriptors"), 1);
}

/// Of a client with the address 10.0.0.7.
const HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x07\x0a\0\0\x01\x30\x39\0\x50";

fn behind_proxies(proxy_protocol: ProxyProtocol, limits: Limits, sockets: usize) -> Rig {
    let rules = AdmissionRules {
        clients: AccessList::Networks(vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.1/32".parse().unwrap()]),
        names: Vec::new(),
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        proxy_protocol,
    };
    Rig::with(rules, limits, sockets)
}

#[tokio::test]
async fn the_limit_for_one_client_is_not_for_proxies_and_the_limit_for_all_is() {
    let limits = Limits { connections_per_client: 1, ..Limits::default() };
    let rig = behind_proxies(ProxyProtocol::None, limits, 3);
    let mut open = Vec::new();
    for _ in 0..3 {
        let (stream, head) = rig.ask().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        open.push(stream);
    }
    let (_stream, head) = rig.ask().await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!((rig.limited("connections_per_client"), rig.limited("descriptors")), (0, 1));
}

#[test]
fn strangers_that_have_yet_to_show_a_name_take_no_more_than_their_share() {
    let rules = AdmissionRules {
        clients: AccessList::Networks(vec!["10.0.0.0/8".parse().unwrap()]),
        names: vec![ClientName::parse("*.plant.example").unwrap()],
        trusted_proxies: Vec::new(),
        proxy_protocol: ProxyProtocol::None,
    };
    let context = WireContext::new(Limits::default(), Arc::new(Metrics::new().unwrap()), Drain::new());
    let budget = DescriptorBudget { sockets: 8, files: 1, reserve: 1 };
    let admission = Admission::new(rules, budget, Arc::new(context));
    let (listed, stranger) = ("10.0.0.1".parse().unwrap(), "8.8.8.8".parse().unwrap());
    assert_eq!(admission.admit(stranger, false).unwrap_err(), Refusal::ClientNotAllowed);
    let mut held: Vec<_> = (0..2).map(|_| admission.admit(stranger, true).unwrap()).collect();
    assert_eq!(admission.admit(stranger, true).unwrap_err(), Refusal::NoDescriptors);
    let mut relayed = admission.admit_proxy().unwrap();
    assert_eq!(relayed.take(stranger, true).unwrap_err(), Refusal::NoDescriptors);
    drop(relayed);
    held.extend((0..6).map(|round| admission.admit(listed, round % 2 == 0).unwrap()));
    assert_eq!(admission.admit(listed, true).unwrap_err(), Refusal::NoDescriptors);
    held.clear();
    assert!(admission.admit(stranger, true).is_ok());
}

#[tokio::test]
async fn beyond_the_socket_budget_relayed_clients_get_503_behind_their_headers() {
    let rig = behind_proxies(ProxyProtocol::V2, Limits::default(), 1);
    // A connection takes its place before its header has come.
    let mut waiting = TcpStream::connect(rig.address).await.unwrap();
    for count in 1..4 {
        let (_stream, head) = rig.ask_behind(HEADER).await;
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nContent-Length: 0\r\n"), "{head}");
        assert_eq!(rig.limited("descriptors"), count);
    }
    waiting.write_all(HEADER).await.unwrap();
    waiting.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    tokio::time::timeout(NEVER, waiting.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    drop(waiting);
    let again = async {
        while !rig.ask_behind(HEADER).await.1.starts_with("HTTP/1.1 200 ") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(NEVER, again).await.unwrap();
}

#[tokio::test]
async fn a_draining_listener_goes_on_accepting_and_answers_503() {
    let rig = Rig::new(AccessList::Any, Limits::default(), 100);
    rig.context.drain().start();
    for _ in 0..3 {
        let (_stream, head) = rig.ask().await;
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nConnection: close\r\n"), "{head}");
    }
    assert_eq!(rig.limited("draining"), 3);
}

#[tokio::test]
async fn the_spare_descriptor_refuses_one_connection_and_comes_back() {
    let context = WireContext::new(Limits::default(), Arc::new(Metrics::new().unwrap()), Drain::new());
    let listener = bind(&["127.0.0.1:0".parse().unwrap()], &mut Inherited::default()).unwrap().remove(0);
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let mut spare = Spare::new();
    spare.refuse_one(&listener, &context, false).await;
    assert!(spare.0.is_some());
    let mut answer = String::new();
    tokio::time::timeout(NEVER, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(context.metrics().limited.with_label_values(&["descriptors"]).get(), 1);
}

/// The name by which the next test starts this one in a process of its own, whose descriptors it may use up.
const SERVER: &str = "serve::listener::tests::a_server_with_few_descriptors";
/// Set in that process.
const IS_SERVER: &str = "WAYSTATION_TEST_IS_SERVER";

#[tokio::test]
#[ignore = "the server side of another test"]
async fn a_server_with_few_descriptors() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if std::env::var_os(IS_SERVER).is_none() {
        return;
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(40), maximum: Some(40) }).unwrap();
    let rig = Rig::new(AccessList::Any, Limits::default(), 1000);
    println!("\nport {}", rig.address.port());
    // Ends with the process that started it.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
}

#[test]
fn a_server_without_descriptors_answers_503_and_recovers() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, Stdio};

    struct Server(Child);
    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let mut server = Command::new(std::env::current_exe().unwrap());
    server.args(["--ignored", "--exact", SERVER, "--nocapture"]).env(IS_SERVER, "1");
    server.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Server(server.spawn().unwrap());
    let output = BufReader::new(server.0.stdout.take().unwrap());
    let port = output.lines().find_map(|line| line.unwrap().strip_prefix("port ")?.parse::<u16>().ok()).unwrap();

    let ask = || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(NEVER)).unwrap();
        // May come too late for a connection that was refused at once.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (stream, String::from_utf8(status.to_vec()).unwrap())
    };
    let (open, statuses): (Vec<_>, Vec<_>) = (0..60).map(|_| ask()).unzip();
    let served = statuses.iter().filter(|&status| status == "HTTP/1.1 200").count();
    let refused = statuses.iter().filter(|&status| status == "HTTP/1.1 503").count();
    assert_eq!(served + refused, 60, "{statuses:?}");
    assert!(served >= 20 && refused >= 20, "{served} served, {refused} refused");
    drop(open);
    while ask().1 != "HTTP/1.1 200" {}
}
