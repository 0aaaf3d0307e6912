//! Pins, as an operator sets them: with the command line or the API, on a drive that is too small for everything.

use serde_json::{Value, json};

use super::rig::client::{get, once, request};
use super::rig::fake_origin::FakeOrigin;
use super::rig::origin_reply::Reply;
use super::rig::pattern::Pattern;
use super::rig::running_node::{RunningNode, Setup};

const HOST: &str = "dl.example.com";
const TOKEN: &str = "a-token-for-this-story";
const MIB: u64 = 1 << 20;

fn pattern(file: u64) -> Pattern {
    Pattern::new(9100 + file, MIB + file)
}

fn name(file: u64) -> String {
    format!("http://{HOST}/{file}")
}

/// A node whose drive has room for fifteen files.
fn setup(origin: &FakeOrigin) -> Setup {
    let setup = Setup::new().origin(HOST, origin.address, json!({}));
    std::fs::write(setup.path("token"), format!("{TOKEN}\n")).unwrap();
    let (drive, token) = (setup.path("drive1"), setup.path("token"));
    let setup = setup.set("storage.drives", json!([{ "path": drive, "quota": "16 MiB", "min_free": 0 }]));
    setup.set("admin", json!({ "token_file": token }))
}

/// Runs `waystation store` with these words for this node; its exit code, and what it said.
fn store(node: &RunningNode, words: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_waystation"));
    let command = command.arg("store").args(words).arg("--config").arg(node.setup().path("node.yaml"));
    let output = command.args(["--admin", &node.admin.to_string()]).env_clear().output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// Asks the API; status and body.
async fn api(node: &RunningNode, method: &str, target: &str, token: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let fields = [format!("Authorization: Bearer {token}"), format!("Content-Length: {length}")];
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let answer = once(node.admin, &format!("{}{body}", request(method, target, &fields))).await;
    let told = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
    (answer.head.status, told)
}

/// Whether a file comes from the store. The origin is asked for it otherwise.
async fn is_stored(node: &RunningNode, origin: &FakeOrigin, file: u64) -> bool {
    let before = origin.requests();
    let answer = node.get(&format!("/{file}?cacheHostOrigin={HOST}"), &[]).await;
    assert!(answer.head.status == 200 && answer.body == pattern(file).bytes(), "{file}: {}", answer.head.status);
    origin.requests() == before
}

/// Devices ask for these files, twice each.
async fn crowd(node: &RunningNode, origin: &FakeOrigin, files: std::ops::Range<u64>) {
    for file in files {
        is_stored(node, origin, file).await;
        is_stored(node, origin, file).await;
    }
}

#[tokio::test]
async fn what_an_operator_pins_stays_and_what_is_unpinned_goes() {
    let origin = FakeOrigin::start().await;
    (0..200).for_each(|file| origin.serve(&format!("/{file}"), Reply::file(pattern(file))));
    let node = setup(&origin).start();
    for file in 0..3 {
        assert!(!is_stored(&node, &origin, file).await);
    }
    let (code, said) = store(&node, &["pins"]);
    assert_eq!((code, said.as_str()), (Some(0), "nothing is pinned\n"));
    node.wait_for_fills(3).await;
    let by_digest = format!("sha256:{}", hex(&pattern(1).sha256()));
    let (code, said) = store(&node, &["pin", &name(0), &by_digest, &name(150), "--reason", "line 4", "--for", "30d"]);
    assert!(code == Some(0) && said.contains(&format!("{HOST}/0\n  {MIB} bytes, until ")), "{said}");
    assert!(said.contains(&format!("{HOST}/150\n  not stored yet, until ")), "{said}");
    crowd(&node, &origin, 3..40).await;
    let node = node.kill().await.start();
    crowd(&node, &origin, 40..60).await;
    assert!(is_stored(&node, &origin, 0).await && is_stored(&node, &origin, 1).await);
    assert!(!is_stored(&node, &origin, 2).await, "nobody pinned it");
    assert_eq!(node.metric("waystation_store_pins", "").await, 3.0);

    let (code, said) = store(&node, &["unpin", &format!("{HOST}/0"), "--output", "json"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert!(code == Some(0) && told == json!({ "unpinned": [format!("{HOST}/0")] }), "{said}");
    let (code, said) = store(&node, &["unpin", &name(0)]);
    assert!(code == Some(1) && said.contains("it is not pinned"), "{said}");
    let (code, said) = store(&node, &["unpin", &name(150), &name(0)]);
    assert!(code == Some(1) && said.contains("not pinned any more: dl.example.com/150"), "{said}");
    crowd(&node, &origin, 60..100).await;
    assert!(is_stored(&node, &origin, 1).await && !is_stored(&node, &origin, 0).await);
}

#[tokio::test]
async fn only_those_with_the_token_see_or_change_pins() {
    let origin = FakeOrigin::start().await;
    let node = setup(&origin).start();
    let answer = once(node.admin, &get("/api/v1/pins", &[])).await;
    assert_eq!((answer.head.status, answer.head.field("www-authenticate")), (401, Some("Bearer")));
    let wrong = api(&node, "GET", "/api/v1/pins", "a-token-for-this-stork", "").await;
    assert!(wrong.0 == 401 && wrong.1["error"].as_str().unwrap().contains("admin.token_file"), "{wrong:?}");
    assert_eq!(api(&node, "GET", "/api/v1/pins", TOKEN, "").await, (200, json!({ "pins": [] })));
    // Another token takes its place while the node runs.
    std::fs::write(node.setup().path("token"), "quite-another-token\n").unwrap();
    assert_eq!(api(&node, "GET", "/api/v1/pins", TOKEN, "").await.0, 401);
    assert_eq!(api(&node, "GET", "/api/v1/pins", "quite-another-token", "").await.0, 200);
    std::fs::write(node.setup().path("token"), "short\n").unwrap();
    let (status, told) = api(&node, "GET", "/api/v1/pins", "short", "").await;
    assert!(status == 500 && !told.to_string().contains("short"), "{told}");

    let off = Setup::new().origin(HOST, origin.address, json!({})).start();
    let (status, told) = api(&off, "GET", "/api/v1/pins", TOKEN, "").await;
    assert!(status == 403 && told["error"].as_str().unwrap().contains("set admin.token_file"), "{told}");
    let (code, said) = store(&off, &["pins"]);
    assert!(code == Some(1) && said.contains("admin.token_file is not set"), "{said}");
}

#[tokio::test]
async fn what_is_wrong_with_a_pin_is_said() {
    let origin = FakeOrigin::start().await;
    let node = setup(&origin).start();
    let pin = |target: &str, reason: &str, expires: Value| {
        json!({ "targets": [target], "reason": reason, "expires": expires }).to_string()
    };
    let good = name(0);
    let rows = [
        ("".to_owned(), "the body is not what is asked for"),
        ("{}".to_owned(), "missing field `targets`"),
        (json!({ "targets": [good], "reason": "r", "until": 1 }).to_string(), "unknown field `until`"),
        (json!({ "targets": [], "reason": "r" }).to_string(), "targets: there is none"),
        (pin("0", "r", Value::Null), "targets: 0: this is not a URL"),
        (pin("sha256:00", "r", Value::Null), "64 digits are needed"),
        (pin("http://other.example.com/", "r", Value::Null), "other.example.com"),
        (pin(&good, "", Value::Null), "reason: there is none"),
        (pin(&good, &"x".repeat(201), Value::Null), "reason: it is too long"),
        (pin(&good, "r", json!("tomorrow")), "expires: tomorrow is not a time of RFC 3339"),
        (pin(&good, "r", json!("2020-01-01T00:00:00Z")), "has passed"),
    ];
    for (body, problem) in rows {
        let (status, told) = api(&node, "POST", "/api/v1/pins", TOKEN, &body).await;
        assert!(status == 400 && told["error"].as_str().unwrap().contains(problem), "{problem}: {status} {told}");
    }
    for (method, target, status) in [
        ("GET", "/api/v1/", 404),
        ("GET", "/api/v1/objects", 404),
        ("PUT", "/api/v1/pins", 405),
        ("DELETE", "/api/v1/pins", 400),
        ("DELETE", "/api/v1/pins?digest=a", 400),
        ("DELETE", "/api/v1/pins?target=%ff", 400),
        ("DELETE", "/api/v1/pins?target=nothing", 400),
        ("DELETE", "/api/v1/pins?target=http%3A%2F%2Fdl.example.com%2F0", 404),
    ] {
        assert_eq!(api(&node, method, target, TOKEN, "").await.0, status, "{method} {target}");
    }
    assert_eq!(api(&node, "GET", "/api/v1/pins", TOKEN, "").await.1, json!({ "pins": [] }), "nothing came of it");
    let node = node.stop().await;
    let words = ["store", "pins", "--config", node.path("node.yaml").to_str().unwrap(), "--admin", "127.0.0.1:1"]
        .map(str::to_owned);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_waystation")).args(words).env_clear().output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("no cache answers at 127.0.0.1:1"), "{said}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
