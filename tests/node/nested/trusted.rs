//! Whose word for what content has counts: a parent that TLS authenticates and the settings trust, and nobody else's.

use super::super::rig::origin_reply::Received;
use super::super::rig::running_node::files_below;
use super::super::rig::tls::{Authority, CACHE, Terminator, put};
use super::*;

/// Another URL that may have the same content.
pub(super) const OTHER: &str = "/westus2/contoso--fleet/fedcba9876543210fedcba9876543210/image.swu";
/// What a cache adds to say that the digest is its own word.
const OWN: &str = "l5; hit; digest=own";

pub(super) fn url_of(path: &str) -> String {
    format!("{path}?cacheHostOrigin={HOST}")
}

/// The level that reaches the origin, with a TLS listener; `more` are further settings of that.
pub(super) fn secured(origin: &FakeOrigin, site: &Authority, mode: Mode, more: &[(&str, &str)]) -> Setup {
    let setup = top(origin, mode.rule());
    let directory = setup.path("");
    site.pair(CACHE, 2000..2200).write(&directory);
    put(&directory, "ca.pem", &site.pem());
    let files = [("certificate", "server.pem"), ("key", "server.key")];
    let files = files.iter().chain(more);
    let setup = setup.set("listen.tls", json!({ "addresses": ["127.0.0.1:0"] }));
    files.fold(setup, |setup, (name, file)| setup.set(&format!("listen.tls.{name}"), json!(directory.join(file))))
}

pub(super) fn parent(address: SocketAddr, trusted: bool) -> Value {
    json!({ "url": format!("https://{address}"), "tls_name": CACHE, "trusted": trusted })
}

/// A level that trusts the certificates of `site`.
pub(super) fn child(parents: &[Value], site: &Authority, rule: Value) -> Setup {
    let setup = below(parents, rule);
    let directory = setup.path("");
    put(&directory, "ca.pem", &site.pem());
    site.pair("line1.l4.plant.example", 2000..2200).write(&directory);
    setup.set("upstream.tls.ca", json!(directory.join("ca.pem")))
}

async fn transferred(node: &RunningNode) -> u64 {
    node.metric("waystation_upstream_bytes_total", "").await as u64
}

fn bodies(node: &RunningNode) -> usize {
    files_below(&node.setup().path("drive1/blobs")).len()
}

fn digest_field(pattern: Pattern) -> String {
    let digest = waystation::content::Digest::from_bytes(pattern.sha256());
    format!("sha-256=:{}:", digest.to_base64())
}

fn digest_rule(mut rule: Value, path: &str, pattern: Pattern) -> Value {
    let digest = waystation::content::Digest::from_bytes(pattern.sha256());
    rule["digests"] = json!({ path: digest.to_base64() });
    rule
}

/// What a parent that says so of itself answers.
fn vouched(content: Pattern, claimed: Pattern) -> Reply {
    Reply::file(content).with_digest(claimed).with("Cache-Status", OWN)
}

async fn has(node: &RunningNode, pattern: Pattern) {
    must_be(&node.get(&asked(), &[]).await, pattern);
    node.wait_for_fills(1).await;
    node.wait_for_commits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_is_given_under_another_url_on_a_trusted_parent_s_word() {
    let (site, pattern) = (Authority::new("site"), Pattern::new(820, 24 * MIB));
    for mode in Mode::BOTH {
        let origin = FakeOrigin::with(PATH, Reply::file(pattern)).await;
        origin.serve(OTHER, Reply::file(pattern).with("ETag", "\"other\"").with("X-Of", "the other"));
        let l5 = secured(&origin, &site, mode, &[]).start();
        for path in [PATH, OTHER] {
            must_be(&l5.get(&url_of(path), &[]).await, pattern);
        }
        l5.wait_for_fills(2).await;
        let l4 = child(&[parent(l5.tls.unwrap(), true)], &site, mode.rule()).start();
        has(&l4, pattern).await;
        let before = (transferred(&l4).await, origin.body_bytes());
        assert_eq!(before.0, pattern.len, "{mode:?}");
        // A range first, as who resumes asks.
        let part = l4.get(&url_of(OTHER), &["Range: bytes=9000000-9999999"]).await;
        assert_eq!(part.head.status, 206, "{}", part.head.raw);
        assert!(part.body == pattern.slice(9_000_000, 10_000_000));
        for _ in 0..2 {
            let answer = l4.get(&url_of(OTHER), &[]).await;
            must_be(&answer, pattern);
            assert_eq!(answer.head.field("X-Of"), Some("the other"), "its fields are those of its URL");
            assert_eq!(answer.head.field("ETag"), Some("\"other\""));
            assert_eq!(answer.head.exact("Repr-Digest"), Some(&*digest_field(pattern)));
        }
        assert_eq!((transferred(&l4).await, origin.body_bytes()), before, "{mode:?}: no body byte came");
        assert_eq!(l4.metric("waystation_fills_total", "known").await, 1.0);
        l4.wait_for_commits().await;
        assert_eq!(bodies(&l4), 1);
        // It is stored like anything else.
        drop(l5);
        let l4 = l4.stop().await.start();
        must_be(&l4.get(&url_of(OTHER), &[]).await, pattern);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_s_word_spares_a_transfer() {
    let (site, pattern) = (Authority::new("site"), Pattern::new(821, 3 * MIB));
    let origin = FakeOrigin::with(PATH, Reply::file(pattern)).await;
    origin.serve(OTHER, Reply::file(pattern));
    let l5 = secured(&origin, &site, Mode::Ranged, &[]).start();
    for path in [PATH, OTHER] {
        must_be(&l5.get(&url_of(path), &[]).await, pattern);
    }
    l5.wait_for_fills(2).await;
    for untrusted in [parent(l5.tls.unwrap(), false), url(l5.data)] {
        let l4 = child(&[untrusted], &site, json!({})).start();
        has(&l4, pattern).await;
        must_be(&l4.get(&url_of(OTHER), &[]).await, pattern);
        l4.wait_for_fills(2).await;
        assert_eq!(transferred(&l4).await, 2 * pattern.len);
        l4.wait_for_commits().await;
        assert_eq!(bodies(&l4), 1, "one copy is kept");
    }
    // An origin's own claim that a trusted parent passes on is no word of the parent.
    let claiming = FakeOrigin::with(PATH, Reply::file(pattern)).await;
    claiming.serve(OTHER, Reply::file(pattern).with_digest(pattern).with("Cache-Status", OWN));
    let l5 = secured(&claiming, &site, Mode::Ranged, &[]).start();
    let l4 = child(&[parent(l5.tls.unwrap(), true)], &site, json!({})).start();
    has(&l4, pattern).await;
    must_be(&l4.get(&url_of(OTHER), &[]).await, pattern);
    assert_eq!(transferred(&l4).await, 2 * pattern.len);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_lies_swaps_nothing() {
    let site = Authority::new("site");
    let (stored, other) = (Pattern::new(822, 2 * MIB), Pattern::new(823, 2 * MIB));
    let shorter = Pattern::new(824, MIB);
    let liar = FakeOrigin::with(PATH, Reply::file(stored)).await;
    let honest = FakeOrigin::start().await;
    let terminator = Terminator::before(liar.address, &site.pair(CACHE, 2000..2200)).await;
    // (who says that a URL has what is stored, what it really gives)
    for (teller, content) in [
        (url(liar.address), other),
        (url(liar.address), shorter),
        (parent(terminator.address, false), other),
        (parent(terminator.address, false), shorter),
        // One that is trusted is believed only where the length fits.
        (parent(terminator.address, true), shorter),
    ] {
        for damaged in [false, true] {
            liar.serve(OTHER, vouched(content, stored));
            honest.serve(OTHER, if damaged { vouched(content, content) } else { Reply::file(content) });
            let alone = child(std::slice::from_ref(&teller), &site, json!({})).start();
            has(&alone, stored).await;
            let answer = alone.get(&url_of(OTHER), &[]).await;
            assert_eq!((answer.head.status, answer.body.len()), (503, 0), "{teller}: {}", answer.head.raw);
            must_be(&alone.get(&asked(), &[]).await, stored);
            drop(alone);
            // The next source is asked.
            let l4 = child(&[teller.clone(), url(honest.address)], &site, json!({})).start();
            has(&l4, stored).await;
            for _ in 0..2 {
                must_be(&l4.get(&url_of(OTHER), &[]).await, content);
            }
            must_be(&l4.get(&asked(), &[]).await, stored);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_parent_whose_bytes_are_not_what_it_says_is_left_for_the_next_one() {
    let (site, pattern) = (Authority::new("site"), Pattern::new(825, 3 * MIB));
    let liar = FakeOrigin::with(PATH, vouched(pattern, pattern).damaged(MIB)).await;
    let honest = FakeOrigin::with(PATH, Reply::file(pattern)).await;
    let terminator = Terminator::before(liar.address, &site.pair(CACHE, 2000..2200)).await;
    for mode in Mode::BOTH {
        let trusted = parent(terminator.address, true);
        let alone = child(std::slice::from_ref(&trusted), &site, mode.rule()).start();
        assert_eq!(alone.get(&asked(), &[]).await.head.status, 503, "{mode:?}");
        let l4 = child(&[trusted, url(honest.address)], &site, mode.rule()).start();
        must_be(&l4.get(&asked(), &[]).await, pattern);
        assert_eq!(l4.metric("waystation_fills_total", "mismatch").await, 1.0, "{mode:?}");
    }
    let asked = liar.received();
    assert!(asked.iter().all(|request| request.field("Want-Repr-Digest") == Some("sha-256=10")), "{asked:?}");
    assert!(honest.received().iter().all(|request| request.field("Want-Repr-Digest").is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_rule_tells_the_digest_of_comes_by_its_digest_when_its_url_cannot_be_had() {
    let (site, pattern) = (Authority::new("site"), Pattern::new(826, 5 * MIB));
    let origin = FakeOrigin::with(PATH, Reply::file(pattern)).await;
    origin.serve(OTHER, Reply::status(503, ""));
    let setup = secured(&origin, &site, Mode::Ranged, &[("client_ca", "ca.pem")]);
    let l5 = setup.set("listen.digest_clients", json!(["certified"])).start();
    has(&l5, pattern).await;
    let told = |mode: Mode| digest_rule(mode.rule(), OTHER, pattern);
    let certified = |setup: Setup| {
        let directory = setup.path("");
        let setup = setup.set("upstream.tls.certificate", json!(directory.join("server.pem")));
        setup.set("upstream.tls.key", json!(directory.join("server.key")))
    };
    for mode in Mode::BOTH {
        let l4 = certified(child(&[parent(l5.tls.unwrap(), true)], &site, told(mode))).start();
        let part = l4.get(&url_of(OTHER), &["Range: bytes=3000000-"]).await;
        assert_eq!((part.head.status, part.body == pattern.slice(3_000_000, pattern.len)), (206, true), "{mode:?}");
        must_be(&l4.get(&url_of(OTHER), &[]).await, pattern);
        assert_eq!(transferred(&l4).await, pattern.len, "{mode:?}");
    }
    // Nor does it matter that the parent has no rule for the host.
    let mut rule = told(Mode::Ranged);
    rule["host"] = json!("twin.example");
    let l4 = certified(child(&[parent(l5.tls.unwrap(), true)], &site, json!({}))).set("origins", json!([rule])).start();
    must_be(&l4.get(&format!("{OTHER}?cacheHostOrigin=twin.example"), &[]).await, pattern);
    assert!(l4.says("it has no rule for this host"));
    // Who is not trusted is not asked so, and who tells no digest cannot ask.
    let untrusted = certified(child(&[parent(l5.tls.unwrap(), false)], &site, told(Mode::Ranged))).start();
    let untold = certified(child(&[parent(l5.tls.unwrap(), true)], &site, json!({}))).start();
    for l4 in [untrusted, untold] {
        assert_eq!(l4.get(&url_of(OTHER), &[]).await.head.status, 503);
    }
    // What is stored here needs nobody.
    let rule = digest_rule(Mode::Ranged.rule(), OTHER, pattern);
    let l4 = certified(child(&[parent(l5.tls.unwrap(), false)], &site, rule)).start();
    has(&l4, pattern).await;
    l5.stop().await;
    must_be(&l4.get(&url_of(OTHER), &[]).await, pattern);
    assert_eq!(transferred(&l4).await, pattern.len);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_ask_by_digest_and_what_was_fetched_with_a_token_is_not_given_so() {
    let (site, pattern) = (Authority::new("site"), Pattern::new(827, MIB));
    let origin = FakeOrigin::with(PATH, Reply::file(pattern)).await;
    origin.serve(OTHER, Reply::status(503, ""));
    for (clients, token, given) in [
        (json!(["127.0.0.0/8"]), "", true),
        (json!(["10.0.0.0/8"]), "", false),
        (json!(["127.0.0.0/8"]), "sv=1&se=2099-01-01T00%3A00%3A00Z&sr=b&sp=r&sig=good&", false),
    ] {
        let mut l5 = secured(&origin, &site, Mode::Ranged, &[]).set("listen.digest_clients", clients);
        l5 = l5.set("origins", json!([])).origin(HOST, origin.address, json!({ "auth_parameters": "azure-sas" }));
        let l5 = l5.start();
        must_be(&l5.get(&format!("{PATH}?{token}cacheHostOrigin={HOST}"), &[]).await, pattern);
        l5.wait_for_fills(1).await;
        l5.wait_for_commits().await;
        let l4 = child(&[parent(l5.tls.unwrap(), true)], &site, digest_rule(json!({}), OTHER, pattern)).start();
        let answer = l4.get(&url_of(OTHER), &[]).await;
        assert_eq!(answer.head.status == 200, given, "{token}: {}", answer.head.raw);
        if given {
            must_be(&answer, pattern);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_the_word_of_its_origin_is_not_given_under_another_name() {
    let (site, pattern) = (Authority::new("site"), Pattern::new(828, MIB));
    let told = |path: &str| digest_rule(json!({}), path, pattern);
    for (control, given) in [("max-age=600", true), ("max-age=600, must-revalidate", false), ("no-cache", false)] {
        let origin = FakeOrigin::with(PATH, Reply::file(pattern).with("Cache-Control", control)).await;
        origin.serve(OTHER, Reply::status(503, ""));
        let l5 =
            secured(&origin, &site, Mode::Ranged, &[]).set("listen.digest_clients", json!(["127.0.0.0/8"])).start();
        has(&l5, pattern).await;
        let l4 = child(&[parent(l5.tls.unwrap(), true)], &site, told(OTHER)).start();
        assert_eq!(l4.get(&url_of(OTHER), &[]).await.head.status == 200, given, "by digest, {control}");
        // The same of what is stored on the own level.
        let own = child(&[parent(l5.tls.unwrap(), false)], &site, told(OTHER)).start();
        has(&own, pattern).await;
        assert_eq!(own.get(&url_of(OTHER), &[]).await.head.status == 200, given, "stored here, {control}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_and_what_tokens_protect_are_not_got_round_by_a_digest() {
    let pattern = Pattern::new(829, MIB);
    let origin = FakeOrigin::with(PATH, Reply::file(pattern)).await;
    for (status, rule, given) in
        [(503, json!({}), true), (403, json!({}), false), (503, json!({ "auth_parameters": "azure-sas" }), false)]
    {
        origin.serve(OTHER, Reply::status(status, ""));
        // A parent that says nothing of who answers.
        let node = below(&[url(origin.address)], digest_rule(rule, OTHER, pattern)).start();
        has(&node, pattern).await;
        let answer = node.get(&url_of(OTHER), &[]).await;
        assert_eq!(answer.head.status, if given { 200 } else { 503 }, "{status}: {}", answer.head.raw);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_does_not_take_the_check_away_from_all_others() {
    let (pattern, damaged) = (Pattern::new(830, 3 * MIB), 1_000_000);
    // It leaves its digest out where the request wants none.
    let parent = FakeOrigin::start().await;
    parent.script(PATH, move |request: &Received| {
        let reply = Reply::file(pattern).damaged(damaged);
        if request.field("Want-Repr-Digest").is_some() { reply } else { reply.with_digest(pattern) }
    });
    let node = below(&[url(parent.address)], json!({})).start();
    let mut connection = Connection::open(node.data).await;
    connection.send(&get(&asked(), &["Want-Repr-Digest: sha-256=0"])).await;
    let head = connection.head().await;
    let got = connection.checked(&head, pattern, 0).await;
    assert!(got.len < pattern.len, "a damaged body does not end well: {got:?}");
}
