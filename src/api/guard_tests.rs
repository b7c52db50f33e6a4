use axum::http::Request;

use super::*;
use AccessRole::{Admin, Count, Read};

const HERE: &str = "127.0.0.1";
const THERE: &str = "10.0.0.5";

fn config(listen: &str) -> ApiConfig {
    ApiConfig::new(listen.parse().unwrap())
}

fn guard(listen: &str) -> Guard {
    Guard::new(&config(listen))
}

fn tcp(peer: &str, is_encrypted: bool) -> Via {
    Via::tcp(peer.parse().unwrap(), is_encrypted)
}

struct Asked<'a> {
    via: Via,
    need: Option<AccessRole>,
    method: Method,
    headers: &'a [(&'a str, &'a str)],
}

/// A token, and the header that presents it.
fn token() -> (AccessToken, String) {
    let token = AccessToken::random().unwrap();
    let text = format!("Bearer {}", token.reveal());
    (token, text)
}

fn ask(
    guard: &Guard,
    asked: &Asked<'_>,
    known: Option<(&AccessToken, AccessRole)>,
) -> Result<Caller, Problem> {
    let mut request = Request::builder().method(asked.method.clone()).uri("/");
    for (name, value) in asked.headers {
        request = request.header(*name, *value);
    }
    let known = |hash: &AccessHash| {
        let (token, role) = known?;
        (token.hash() == *hash).then(|| ("press".to_owned(), role))
    };
    guard.check(&request.body(()).unwrap(), asked.via, asked.need, known)
}

/// What becomes of a request; `None`: it is answered.
fn get(guard: &Guard, via: Via, need: AccessRole, headers: &[(&str, &str)]) -> Option<Name> {
    let asked = Asked { via, need: Some(need), method: Method::GET, headers };
    ask(guard, &asked, None).err().map(|problem| problem.name)
}

fn post(guard: &Guard, headers: &[(&str, &str)]) -> Option<Name> {
    let asked = Asked { via: tcp(HERE, false), need: Some(Count), method: Method::POST, headers };
    ask(guard, &asked, None).err().map(|problem| problem.name)
}

#[test]
fn a_page_of_another_origin_changes_nothing() {
    let guard = guard("127.0.0.1:7480");
    let host = ("host", "127.0.0.1:7480");
    assert_eq!(post(&guard, &[host]), None);
    assert_eq!(post(&guard, &[host, ("origin", "http://127.0.0.1:7480")]), None);
    assert_eq!(post(&guard, &[host, ("origin", "http://127.0.0.1:80")]), Some(Name::CrossOrigin));
    assert_eq!(post(&guard, &[host, ("origin", "http://evil.example")]), Some(Name::CrossOrigin));
    assert_eq!(post(&guard, &[host, ("origin", "null")]), Some(Name::CrossOrigin));
    assert_eq!(post(&guard, &[host, ("sec-fetch-site", "cross-site")]), Some(Name::CrossOrigin));
    assert_eq!(post(&guard, &[host, ("sec-fetch-site", "same-origin")]), None);
}

#[test]
fn a_rebound_name_is_not_served_on_loopback_and_makes_nobody_local_elsewhere() {
    let (here, everywhere) = (guard("127.0.0.1:7480"), guard("0.0.0.0:7480"));
    let on = |guard: &Guard, host: &str| get(guard, tcp(HERE, false), Read, &[("host", host)]);
    for host in ["127.0.0.1:7480", "localhost", "LOCALHOST:7480", "[::1]:7480", "box.localhost", "10.1.2.3"] {
        assert_eq!(on(&here, host), None, "{host}");
        assert_eq!(on(&everywhere, host), None, "{host}");
    }
    for host in ["evil.example", "evil.example:7480", "localhost.evil.example", "notlocalhost", ""] {
        assert_eq!(on(&here, host), Some(Name::ForbiddenHost), "{host}");
        assert_eq!(on(&everywhere, host), Some(Name::Unauthorized), "{host}");
    }
    assert_eq!(get(&here, tcp(HERE, false), Read, &[]), None);
}

#[test]
fn from_this_machine_anybody_reads_and_counts_and_nobody_administers() {
    let guard = guard("127.0.0.1:7480");
    for peer in [HERE, "::1", "::ffff:127.0.0.1", "127.3.2.1"] {
        assert_eq!(get(&guard, tcp(peer, false), Read, &[]), None, "{peer}");
        assert_eq!(get(&guard, tcp(peer, false), Count, &[]), None, "{peer}");
        assert_eq!(get(&guard, tcp(peer, false), Admin, &[]), Some(Name::Unauthorized), "{peer}");
    }
    assert_eq!(get(&guard, Via::Socket { user: Some(7) }, Admin, &[]), None);
}

#[test]
fn who_may_not_administer_is_told_what_would_help() {
    let config = ApiConfig { socket: Some("/run/tallyd/tallyd.sock".into()), ..config("127.0.0.1:7480") };
    let asked = Asked { via: tcp(HERE, false), need: Some(Admin), method: Method::GET, headers: &[] };
    let problem = ask(&Guard::new(&config), &asked, None).unwrap_err();
    for says in ["the role admin", "unix:/run/tallyd/tallyd.sock", "--token-file"] {
        assert!(problem.detail.contains(says), "{}", problem.detail);
    }
}

#[test]
fn what_was_forwarded_is_not_of_this_machine_whoever_brought_it() {
    let guard = guard("127.0.0.1:7480");
    for header in [("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "127.0.0.1"), ("X-Forwarded-For", "")]
    {
        for via in [tcp(HERE, false), Via::Socket { user: Some(0) }] {
            assert_eq!(get(&guard, via, Read, &[header]), Some(Name::Unauthorized), "{header:?} {via:?}");
            let asked = Asked { via, need: None, method: Method::GET, headers: &[header] };
            assert!(ask(&guard, &asked, None).is_ok(), "what is open to all");
            let (token, bearer) = token();
            let headers = [header, ("authorization", &bearer), ("host", "tally.example")];
            let asked = Asked { via, need: Some(Count), method: Method::GET, headers: &headers };
            assert!(ask(&guard, &asked, Some((&token, Count))).is_ok());
            let asked = Asked { need: Some(Admin), ..asked };
            let problem = ask(&guard, &asked, Some((&token, Count))).unwrap_err();
            assert_eq!(problem.name, Name::RoleTooLow, "even over the socket");
        }
    }
}

#[test]
fn from_elsewhere_a_token_is_needed_or_only_reading_is_free() {
    let none = guard("0.0.0.0:7480");
    let read = Guard::new(&ApiConfig { anonymous_reads: true, ..config("0.0.0.0:7480") });
    assert_eq!(get(&none, tcp(THERE, true), Read, &[("host", "box1.plant")]), Some(Name::Unauthorized));
    assert_eq!(get(&read, tcp(THERE, false), Read, &[("host", "box1.plant")]), None);
    assert_eq!(get(&read, tcp(THERE, false), Count, &[]), Some(Name::Unauthorized));
    assert_eq!(get(&read, tcp(THERE, false), Admin, &[]), Some(Name::Unauthorized));
}

#[test]
fn where_it_could_be_read_on_its_way_no_token_is_taken() {
    let guard = Guard::new(&ApiConfig { anonymous_reads: true, ..config("0.0.0.0:7480") });
    let (token, bearer) = token();
    let headers = [("authorization", bearer.as_str())];
    let asked = |via| Asked { via, need: Some(Read), method: Method::GET, headers: &headers };
    let problem = ask(&guard, &asked(tcp(THERE, false)), Some((&token, Admin))).unwrap_err();
    assert_eq!(problem.name, Name::TokenNotTaken);
    assert!(ask(&guard, &asked(tcp(THERE, true)), Some((&token, Admin))).is_ok());
    assert!(ask(&guard, &asked(tcp(HERE, false)), Some((&token, Admin))).is_ok());
}

#[test]
fn a_role_includes_those_below_it_and_no_more() {
    let guard = guard("0.0.0.0:7480");
    let (token, bearer) = token();
    let headers = [("authorization", bearer.as_str())];
    for role in AccessRole::ALL {
        for need in AccessRole::ALL {
            let asked =
                Asked { via: tcp(THERE, true), need: Some(need), method: Method::GET, headers: &headers };
            let answer = ask(&guard, &asked, Some((&token, role)));
            assert_eq!(answer.is_ok(), role >= need, "{role} {need}");
            if let Ok(caller) = answer {
                assert_eq!(caller.to_string(), "the token \"press\" from 10.0.0.5");
            }
        }
    }
}

#[test]
fn the_token_of_the_file_opens_everything_and_nothing_is_open_without_it() {
    let config = ApiConfig { token: Some(Secret::new("s3cret")), ..config("127.0.0.1:7480") };
    let with = |guard: &Guard, value: &str| get(guard, tcp(HERE, false), Admin, &[("authorization", value)]);
    for wrong in ["Bearer s3cre", "Bearer s3cret2", "Bearer ", "Basic s3cret", "s3cret", ""] {
        assert_eq!(with(&Guard::new(&config), wrong), Some(Name::Unauthorized), "{wrong}");
    }
    let guard = Guard::new(&config);
    assert_eq!(with(&guard, "bearer s3cret"), None);
    assert_eq!(get(&guard, tcp(HERE, false), Read, &[]), Some(Name::Unauthorized));
    assert_eq!(get(&guard, Via::Socket { user: None }, Admin, &[]), None);
    for _ in 0..5 {
        with(&guard, "Bearer wrong");
    }
    assert_eq!(with(&guard, "Bearer s3cret"), Some(Name::TooManyTries), "else it could be guessed");
    assert_eq!(get(&guard, tcp(THERE, true), Admin, &[("authorization", "Bearer s3cret")]), None);
}
