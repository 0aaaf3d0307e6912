//! What holds for every request.

use percent_encoding::percent_decode_str;
use proptest::prelude::*;

use super::*;

/// `name=value` or less, with escapes, of what may stand in a query.
fn parameter() -> impl Strategy<Value = String> {
    "([a-zA-Z0-9._~+-]|%[2-7][0-9a-eA-E]){0,5}(=([a-zA-Z0-9._~+/?=-]|%[2-9a-fA-F][0-9a-eA-E]){0,8})?"
}

fn path() -> impl Strategy<Value = String> {
    "(/([a-zA-Z0-9_~+=(),:@-]|%[2-7][0-9a-eA-E]|%[89a-fA-F][0-9a-f]){0,6}){1,4}"
        .prop_filter("hygienic paths only", |path| check_target(path.as_bytes()).is_ok() && !path.starts_with("/-/"))
}

/// Targets of so few characters that equal keys are common.
fn small_target() -> impl Strategy<Value = String> {
    "/(a|b|/|%61|%62|%2f|%2F|%41|~|%7e|%7E|%2B|%2b|[+]){0,3}([?](a|=|&|%61|%26|%3d|%3D){0,3})?"
}

/// Escapes the unreserved characters that `mask` selects, and changes the case of some escapes.
fn respell(text: &str, mask: u64) -> String {
    let mut spelled = String::new();
    let mut chars = text.chars();
    let mut bits = (0..64).cycle().map(|bit| mask >> bit & 1 == 1);
    while let Some(char) = chars.next() {
        match char {
            '%' => {
                let digits: String = chars.by_ref().take(2).collect();
                let lower = bits.next().unwrap();
                spelled += &format!("%{}", if lower { digits.to_lowercase() } else { digits.to_uppercase() });
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '~' if bits.next().unwrap() => {
                spelled += &format!("%{:02x}", u32::from(char));
            }
            _ => spelled.push(char),
        }
    }
    spelled
}

fn decoded(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_requests_never_panic(target: Vec<u8>, host: Vec<u8>, https: bool) {
        for prefix in ["", "/", "/-/", "/?cacheHostOrigin=", "http://", "http://dl.example.com/"] {
            let mut bytes = prefix.as_bytes().to_vec();
            bytes.extend_from_slice(&target);
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&host) {
                headers.append(HOST, value);
            }
            let Ok(uri) = Uri::try_from(bytes) else { continue };
            for method in [&Method::GET, &Method::CONNECT] {
                let scheme = if https { Scheme::Https } else { Scheme::Http };
                let inbound = Inbound { method, uri: &uri, version: Version::HTTP_11, headers: &headers, scheme };
                if let Err(refusal) = resolve(&inbound, &settings()) {
                    prop_assert!(!refusal.to_string().is_empty() && refusal.status().is_client_error());
                }
                if let Err(refusal) = resolve_connect(&inbound, &[]) {
                    prop_assert!(!refusal.to_string().is_empty() && refusal.status().is_client_error());
                }
                prop_assert!(inbound.loggable_path().as_str().is_ascii());
            }
        }
    }

    #[test]
    fn parsers_take_arbitrary_text(text in "\\PC{0,60}", bytes: Vec<u8>) {
        let _ = (take_parameter(&text), take_path_segment(&text), parse_encoded_host_port(&text));
        let _ = (parse_host_field(&bytes), check_target(&bytes));
        let _ = AuthToken::from_query(&text, &AuthParameters::AzureSas);
    }

    #[test]
    fn the_forwarded_target_is_the_received_one_without_the_parameter(
        path in path(),
        parameters in prop::collection::vec(parameter(), 0..5),
        at: prop::sample::Index,
    ) {
        let mut all: Vec<_> = parameters.iter().map(String::as_str).collect();
        all.insert(at.index(all.len() + 1), "cacheHostOrigin=dl.example.com");
        let expected = match parameters.as_slice() {
            [] => path.clone(),
            some => format!("{path}?{}", some.join("&")),
        };
        let request = get(&format!("{path}?{}", all.join("&"))).resolve(&settings());
        prop_assert_eq!(&request.target, &expected);
        prop_assert_eq!(request.loggable.matches("cacheHostOrigin").count(), 0);
        // By the other forms, the same bytes go on, under the same key.
        for case in [
            get(&format!("http://dl.example.com{expected}")),
            get(&format!("/-/dl.example.com{expected}")),
            get(&expected).host("dl.example.com"),
        ] {
            let other = case.resolve(&settings());
            prop_assert_eq!(&other.target, &expected);
            prop_assert_eq!(&other.key, &request.key);
        }
    }

    #[test]
    fn one_key_means_one_decoded_target(targets in prop::collection::vec(small_target(), 2..16)) {
        let key = |target: &String| get(target).host("dl.example.com").resolve(&settings()).key;
        for first in &targets {
            for second in targets.iter().filter(|second| key(first) == key(second)) {
                prop_assert_eq!(decoded(first), decoded(second));
            }
        }
    }

    #[test]
    fn another_spelling_of_unreserved_characters_is_the_same_key(
        path in path(), query in prop::option::of(parameter()), mask: u64,
    ) {
        let target = query.map_or(path.clone(), |query| format!("{path}?{query}"));
        let request = |target: &str| get(target).host("dl.example.com").resolve(&settings());
        let spelled = respell(&target, mask);
        prop_assert_eq!(request(&spelled).key, request(&target).key, "{}", spelled);
        prop_assert_eq!(&request(&spelled).target, &spelled);
    }

    #[test]
    fn keys_are_their_own_normal_form(path in path(), query in prop::option::of(parameter())) {
        let target = query.map_or(path.clone(), |query| format!("{path}?{query}"));
        let key = |target: &str| get(target).resolve(&settings()).key;
        let key_of_target = key(&format!("http://dl.example.com{target}"));
        prop_assert_eq!(key(&format!("http://{key_of_target}")), key_of_target);
    }

    #[test]
    fn no_secret_reaches_key_or_log(
        path in path(),
        before in prop::collection::vec(parameter(), 0..3),
        names in prop::collection::vec(prop::sample::select(AZURE_SAS.to_vec()), 0..6),
        secret in "Q7[a-z0-9]{6}",
        escape: bool,
        upper: bool,
    ) {
        let value = if escape { secret.replace('Q', "%51") } else { secret.clone() };
        let mut all = before;
        for name in names.iter().chain(&["sig"]) {
            let name = if upper { name.to_ascii_uppercase() } else { (*name).to_owned() };
            all.push(format!("{name}={value}"));
        }
        let target = format!("{path}?{}", all.join("&"));
        let request = get(&target).host("sas.example").resolve(&settings());
        for text in [request.key.as_str(), &request.loggable, &format!("{request:?}")] {
            prop_assert!(!text.contains(&secret) && !text.contains(&value), "{}", text);
        }
        prop_assert_eq!(&request.target, &target);
        prop_assert!(request.token.is_some());
    }
}
