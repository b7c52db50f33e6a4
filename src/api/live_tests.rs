//! The API over a real site of one box: every answer is checked against the description of the API.

use super::problem::TYPE_PREFIX;
use super::*;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::node::{NodeConfig, Runner, RunnerParts};
use crate::storage::{Options, Owner, RealFileSystem, Storage};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// A site of one box in a directory of its own.
struct Box1 {
    api: Api,
    description: Value,
    _directory: tempfile::TempDir,
    _events: mpsc::Sender<crate::transport::Event>,
}

impl Box1 {
    /// Founded alone: nobody can reach it.
    async fn start() -> Box1 {
        Box1::at("").await
    }

    async fn at(address: &str) -> Box1 {
        let directory = tempfile::tempdir().unwrap();
        let mut identity = Identity::found_single(directory.path(), "plant7", "box1", "").unwrap();
        identity.members[0].address = address.to_owned();
        let owner = Owner { site_id: identity.site_id.0, node: identity.node };
        let (storage, recovered) =
            Storage::open(RealFileSystem, directory.path(), owner, Options::default()).unwrap();
        let (events, transport_events) = mpsc::channel(1);
        let metrics = Arc::new(Metrics::default());
        let parts = RunnerParts {
            identity,
            storage,
            recovered,
            transport: Arc::default(),
            transport_events,
            metrics,
        };
        let (runner, handle) = Runner::start(parts, NodeConfig::default()).unwrap();
        tokio::spawn(runner.run());
        handle.role().wait_for(|role| role.leads).await.unwrap();
        let (admin, mut asked) = mpsc::channel(ADMIN_MAX);
        // A daemon that is reached somewhere, and drops whatever else is asked of it.
        tokio::spawn(async move {
            while let Some(request) = asked.recv().await {
                if let Admin::Advertise { reply, .. } = request {
                    let _ = reply.send(Ok("10.0.0.11:7400".to_owned()));
                }
            }
        });
        let api = Api::new(&ApiConfig::new("127.0.0.1:7480".parse().unwrap()), handle, admin);
        let description = serde_json::from_str(include_str!("openapi.json")).unwrap();
        Box1 { api, description, _directory: directory, _events: events }
    }

    /// Asks, and checks the answer against the description.
    async fn ask(&self, method: &str, path: &str, key: Option<&str>, body: &str) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response = self.api.answer(request.body(Body::from(body.to_owned())).unwrap()).await;
        let status = response.status().as_u16();
        let media = response.headers()["content-type"].to_str().unwrap().to_owned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let schema = self.schema_of(method, path, status, &media);
        self.check(&schema, &value, path);
        (status, value)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, None, "").await
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("POST", path, None, &body.to_string()).await
    }

    fn schema_of(&self, method: &str, path: &str, status: u16, media: &str) -> Value {
        let path = path.split('?').next().unwrap();
        let described = self.description["paths"].as_object().unwrap();
        let name = described
            .keys()
            .filter(|name| *name == path || name.find('{').is_some_and(|cut| path.starts_with(&name[..cut])))
            .max_by_key(|name| name.len())
            .unwrap_or_else(|| panic!("{path} is not described"));
        let operation = &described[name][method.to_lowercase()];
        let response = self.resolved(&operation["responses"][status.to_string()]);
        let media = media.split(';').next().unwrap();
        let schema = &response["content"][media]["schema"];
        assert!(!schema.is_null(), "{method} {name} {status} {media} is not described");
        schema.clone()
    }

    fn resolved(&self, schema: &Value) -> Value {
        match schema["$ref"].as_str() {
            Some(path) => self.resolved(self.description.pointer(&path[1..]).unwrap()),
            None => schema.clone(),
        }
    }

    /// As much of JSON Schema as the description of answers uses.
    fn check(&self, schema: &Value, value: &Value, at: &str) {
        let mut schema = self.resolved(schema);
        if let Some(variants) = schema["oneOf"].as_array().filter(|all| !all[0]["$ref"].is_null()) {
            // They differ by role.
            let resolved = variants.iter().map(|variant| self.resolved(variant));
            let roles = |schema: &Value| schema["properties"]["role"]["enum"].as_array().cloned();
            let of_role = |schema: &Value| roles(schema).is_some_and(|roles| roles.contains(&value["role"]));
            schema = resolved.into_iter().find(|schema| of_role(schema)).expect("a variant of that role");
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let is = |name: &&str| match *name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("{at}: type {other}"),
        };
        assert!(types.is_empty() || types.iter().any(is), "{at}: {value} is not {types:?}");
        if let Some(allowed) = schema["enum"].as_array() {
            assert!(allowed.contains(value), "{at}: {value} is not among {allowed:?}");
        }
        // Where null is allowed, it has no members.
        let required = schema["required"].as_array().filter(|_| !value.is_null());
        for required in required.into_iter().flatten() {
            assert!(
                value.get(required.as_str().unwrap()).is_some(),
                "{at}: {required} is missing in {value}"
            );
        }
        for (key, member) in value.as_object().into_iter().flatten() {
            match schema["properties"].get(key) {
                Some(schema) => self.check(schema, member, &format!("{at}.{key}")),
                None => {
                    let is_open = schema["properties"].is_null() || at.ends_with("storage");
                    assert!(is_open, "{at}.{key} is not described");
                }
            }
        }
        for (place, item) in value.as_array().into_iter().flatten().enumerate() {
            if !schema["items"].is_null() {
                self.check(&schema["items"], item, &format!("{at}[{place}]"));
            }
        }
    }
}

fn name_of(problem: &Value) -> &str {
    problem["type"].as_str().unwrap().strip_prefix(TYPE_PREFIX).unwrap()
}

#[tokio::test]
async fn an_add_is_seen_by_the_read_after_it() {
    let box1 = Box1::start().await;
    let (status, added) = box1.post("/v1/counters/line1/press3/parts", &json!({"add": 5})).await;
    assert_eq!((status, &added["total"]), (200, &json!(5)));
    box1.post("/v1/counters/line1%2Fpress3%2Fparts", &json!({"add": 2})).await;
    let (_, series) = box1.get("/v1/series/line1/press3/parts").await;
    assert_eq!(series, json!({"series": "line1/press3/parts", "kind": "counter", "total": 7}));
    let (_, stock) = box1.post("/v1/updowns/stock", &json!({"add": -2})).await;
    assert_eq!(stock["total"], -2);
    let (_, sampled) = box1.post("/v1/samples/hall", &json!({"values": [20.5, 21.5]})).await;
    assert_eq!(sampled["count"], 2);
    let (_, hall) = box1.get("/v1/series/hall?read=local").await;
    assert_eq!((&hall["sum"], &hall["mean"], &hall["last"]), (&json!(42), &json!(21.0), &json!(21.5)));
    assert_eq!(box1.get("/v1/windows/hall?last=5").await.1["kind"], "sample");
}

#[tokio::test]
async fn a_key_counts_once_and_only_for_its_own_add() {
    let box1 = Box1::start().await;
    let add = async |series: &str, body: &str| box1.ask("POST", series, Some("k1"), body).await;
    let (_, first) = add("/v1/counters/a", r#"{"add":5}"#).await;
    assert_eq!(add("/v1/counters/a", r#"{"add":5}"#).await, (200, first));
    for (series, body) in [("/v1/counters/a", r#"{"add":6}"#), ("/v1/counters/b", r#"{"add":5}"#)] {
        let (status, problem) = add(series, body).await;
        assert_eq!((status, name_of(&problem)), (409, "key-reused"));
    }
    assert_eq!(box1.get("/v1/series/a").await.1["total"], 5);
}

#[tokio::test]
async fn what_is_wrong_is_said_with_a_stable_type() {
    let box1 = Box1::start().await;
    box1.post("/v1/counters/a", &json!({"add": 1})).await;
    let add = json!({"add": 1});
    for (method, path, body, status, name) in [
        ("POST", "/v1/updowns/a", &add, 409, "wrong-kind"),
        ("POST", "/v1/counters/a+b", &add, 400, "malformed"),
        ("POST", "/v1/counters/a//b", &add, 400, "malformed"),
        ("POST", "/v1/counters/a", &json!({"add": 0}), 400, "malformed"),
        ("POST", "/v1/counters/a", &json!({"add": "x".repeat(70_000)}), 413, "too-large"),
        ("GET", "/v1/series/none", &add, 404, "no-such-series"),
        ("GET", "/v1/windows/none", &add, 404, "no-such-series"),
        ("GET", "/v1/windows/a?last=0", &add, 400, "malformed"),
        ("GET", "/v1/series?limit=1001", &add, 400, "malformed"),
        ("GET", "/v1/series?limit=x", &add, 400, "malformed"),
        ("GET", "/v1/series/a?read=stale", &add, 400, "malformed"),
        ("GET", "/v1/series/a?reed=local", &add, 400, "malformed"),
        ("PUT", "/v1/settings/none", &json!({"value": "1"}), 404, "no-such-setting"),
        ("PUT", "/v1/settings/window.base", &json!({"value": "soon"}), 400, "malformed"),
        ("POST", "/v1/sources/Box/epochs", &json!({}), 400, "malformed"),
        ("POST", "/v1/reports", &json!({"cells": []}), 400, "malformed"),
        ("POST", "/v1/clock/step", &json!({"to": 5}), 400, "malformed"),
    ] {
        let (got, problem) = box1.ask(method, path, None, &body.to_string()).await;
        assert_eq!((got, name_of(&problem)), (status, name), "{method} {path}");
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
    assert_eq!(box1.get("/v1/series/a").await.1["total"], 1, "nothing of that was counted");
}

#[tokio::test]
async fn paths_and_methods_that_there_are_not_are_problems_too() {
    let box1 = Box1::start().await;
    for (method, path, allowed) in [
        ("GET", "/v1/counters/a", "POST"),
        ("DELETE", "/v1/samples/a/b", "POST"),
        ("DELETE", "/v1/status", "GET, HEAD"),
        ("GET", "/v1/reports", "POST"),
        ("GET", "/v1/leader/transfer", "POST"),
        ("GET", "/v1/clock/step", "POST"),
        ("GET", "/v1/sources/a/epochs", "POST"),
        ("POST", "/v1/settings/keys.max", "PUT"),
        ("POST", "/v1/members/box2", "DELETE, PUT"),
        ("PATCH", "/v1/members", "GET, HEAD, POST"),
        ("POST", "/", "GET, HEAD"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = box1.api.answer(request).await;
        assert_eq!(response.status(), 405, "{method} {path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let told = response.headers()["allow"].to_str().unwrap().to_owned();
        let mut sorted: Vec<&str> = told.split(", ").collect();
        sorted.sort_unstable();
        assert_eq!(sorted.join(", "), allowed, "{method} {path}");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let problem: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(problem["detail"], format!("{method} is not allowed for this path; allowed: {told}"));
    }
    let request = Request::builder().uri("/v2").body(Body::empty()).unwrap();
    assert_eq!(box1.api.answer(request).await.status(), 404);
}

#[tokio::test]
async fn a_report_is_applied_once_and_its_refused_cells_are_named() {
    let box1 = Box1::start().await;
    box1.post("/v1/samples/hall", &json!({"value": 21})).await;
    box1.post("/v1/counters/worn", &json!({"add": 3})).await;
    let (_, opened) = box1.post("/v1/sources/press-3/epochs", &json!({"nonce": "5f"})).await;
    assert_eq!(box1.post("/v1/sources/press-3/epochs", &json!({"nonce": "5f"})).await.1, opened);
    let report = |number: u64, add: i64| {
        json!({"source": "press-3", "epoch": opened["epoch"], "number": number, "cells": [
            {"series": "parts", "add": add}, {"series": "hall", "add": 1}, {"series": "stock", "add": -1},
            {"series": "worn", "add": -1}]})
    };
    let (status, receipt) = box1.post("/v1/reports", &report(1, 5)).await;
    assert_eq!((status, &receipt["repeated"]), (200, &json!(false)));
    assert_eq!(
        (&receipt["refused"][0]["cell"], &receipt["refused"][0]["series"]),
        (&json!(1), &json!("hall"))
    );
    // A counter goes up only: its cell is refused, the others are not held up.
    assert_eq!(
        (&receipt["refused"][1]["cell"], &receipt["refused"][1]["series"]),
        (&json!(3), &json!("worn"))
    );
    assert_eq!(box1.post("/v1/reports", &report(1, 5)).await.1["repeated"], true);
    for (number, add, name) in [(1, 6, "report-changed"), (3, 5, "out-of-order")] {
        let (status, problem) = box1.post("/v1/reports", &report(number, add)).await;
        assert_eq!((status, name_of(&problem), &problem["last"]), (409, name, &json!(1)));
    }
    let stranger = json!({"source": "nobody", "epoch": "1", "number": 1, "cells": []});
    let (status, problem) = box1.post("/v1/reports", &stranger).await;
    assert_eq!((status, name_of(&problem)), (409, "unknown-epoch"));
    assert_eq!(box1.get("/v1/series/parts").await.1["total"], 5);
    assert_eq!(box1.get("/v1/series/stock").await.1["total"], -1);
    assert_eq!(box1.get("/v1/series/worn").await.1["total"], 3);
}

#[tokio::test]
async fn readings_of_a_meter_count_what_it_grew() {
    let box1 = Box1::start().await;
    box1.post("/v1/samples/hall", &json!({"value": 21})).await;
    let (_, opened) = box1.post("/v1/sources/gateway/epochs", &json!({})).await;
    let report = |number: u64, cells: Value| json!({"source": "gateway", "epoch": opened["epoch"], "number": number, "cells": cells});
    let reading = |series: &str, value: u64| json!({"series": series, "meter": "e1", "reading": value});
    for (number, value, total) in [(1, 1000, 0), (2, 1012, 12), (3, 1011, 12), (4, 9, 21)] {
        let body = report(number, json!([reading("energy", value)]));
        let (status, receipt) = box1.post("/v1/reports", &body).await;
        assert_eq!((status, &receipt["refused"]), (200, &json!([])));
        assert_eq!(box1.post("/v1/reports", &body).await.1["repeated"], true);
        assert_eq!(box1.get("/v1/series/energy").await.1["total"], total);
    }
    let told = json!({"series": "energy", "meter": "e1", "reading": 9, "incarnation": "b2", "ceiling": 4096});
    let (status, problem) = box1.post("/v1/reports", &report(4, json!([told]))).await;
    assert_eq!((status, name_of(&problem)), (409, "report-changed"));
    let (_, receipt) = box1.post("/v1/reports", &report(5, json!([reading("hall", 5), told]))).await;
    assert_eq!(
        (&receipt["refused"][0]["cell"], receipt["refused"].as_array().unwrap().len()),
        (&json!(0), 1)
    );
    let (status, _) = box1.get("/v1/status").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_source_beyond_the_bound_is_refused_and_those_known_go_on() {
    let box1 = Box1::start().await;
    // The box itself is the first.
    box1.ask("PUT", "/v1/settings/sources.max", None, r#"{"value":"2"}"#).await;
    let open = async |name: &str| box1.post(&format!("/v1/sources/{name}/epochs"), &json!({})).await;
    assert_eq!(open("press-1").await.0, 200);
    let (status, problem) = open("press-2").await;
    assert_eq!((status, name_of(&problem)), (429, "too-many-sources"), "{problem}");
    assert_eq!(open("press-1").await.0, 200);
}

#[tokio::test]
async fn pages_of_series_follow_each_other_without_gap() {
    let box1 = Box1::start().await;
    for name in ["a/1", "a/2", "a/3", "b"] {
        box1.post(&format!("/v1/counters/{name}"), &json!({"add": 1})).await;
    }
    let (_, first) = box1.get("/v1/series?prefix=a/&limit=2").await;
    assert_eq!((first["series"].as_array().unwrap().len(), &first["next"]), (2, &json!("a/2")));
    let (_, second) = box1.get("/v1/series?prefix=a/&limit=2&after=a/2").await;
    assert_eq!((&second["series"][0]["series"], &second["next"]), (&json!("a/3"), &Value::Null));
    assert_eq!(second["count"], 4);
}

#[tokio::test]
async fn a_watcher_is_told_what_changes_and_no_more_watch_than_may() {
    let box1 = Box1::start().await;
    let watch = async |query: &str| {
        let request = Request::builder().uri(format!("/v1/watch{query}")).body(Body::empty()).unwrap();
        box1.api.answer(request).await
    };
    let mut events = watch("?prefix=a").await.into_body();
    let greeting = events.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(greeting.starts_with(b": watching from index "));
    box1.post("/v1/counters/b", &json!({"add": 1})).await;
    box1.post("/v1/counters/a", &json!({"add": 7})).await;
    let event = events.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(event, "event: total\ndata: {\"series\":\"a\",\"kind\":\"counter\",\"total\":7}\n\n");

    let mut others = Vec::new();
    let refused = loop {
        let response = watch("").await;
        if response.status() != 200 {
            break response;
        }
        others.push(response);
        assert!(others.len() < 1000, "watchers are bounded");
    };
    assert_eq!(refused.status(), 429);
    others.pop();
    assert_eq!(watch("").await.status(), 200, "a place is given back");
}

#[tokio::test]
async fn the_site_can_be_read_and_set() {
    let box1 = Box1::start().await;
    assert_eq!(box1.get("/v1/status").await.1["role"], "leader");
    let (_, changed) = box1.ask("PUT", "/v1/settings/window.grace", None, r#"{"value":"3000ms"}"#).await;
    assert_eq!(changed, json!({"key": "window.grace", "value": "3s"}));
    for value in ["abc", "99d"] {
        let (_, problem) =
            box1.ask("PUT", "/v1/settings/window.grace", None, &json!({ "value": value }).to_string()).await;
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(detail.matches("window.grace").count(), 1, "{detail}");
    }
    let (_, settings) = box1.get("/v1/settings").await;
    let grace =
        settings["settings"].as_array().unwrap().iter().find(|one| one["key"] == "window.grace").unwrap();
    assert_eq!((&grace["value"], &grace["default"]), (&json!("3s"), &json!("2s")));
    for path in ["/readyz", "/healthz", "/metrics", "/"] {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        assert_eq!(box1.api.answer(request).await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_answered_before_it_is_read() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let box1 = Box1::start().await;
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let config = ApiConfig::new(address);
    let api = box1.api.clone();
    let serving = tokio::spawn(async move { serve(listener, api, &config, stopped).await });
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = b"POST /v1/counters/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000000\r\n\r\n";
    stream.write_all(head).await.unwrap();
    // As much as a client may have sent before it looks: the answer must come through nevertheless.
    stream.write_all(&vec![b'x'; 500_000]).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    drop(stream);
    stop.send(true).unwrap();
    serving.await.unwrap();
    assert!(bind(address).await.is_ok(), "the port is free again");
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_says_what_to_do() {
    let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let error = bind(taken.local_addr().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("api.listen = \"127.0.0.1:") && error.contains("another port"), "{error}");
}

#[tokio::test]
async fn an_operator_steps_site_time_to_what_the_clocks_say() {
    let box1 = Box1::start().await;
    for body in ["", "{}"] {
        let (status, stepped) = box1.ask("POST", "/v1/clock/step", None, body).await;
        assert_eq!(status, 200, "{stepped}");
        let apart = stepped["time"].as_i64().unwrap() - stepped["was"].as_i64().unwrap();
        assert!(apart.abs() < 60_000, "the clock was right already: {stepped}");
    }
}

#[tokio::test]
async fn a_box_that_was_founded_alone_takes_nobody_in() {
    let box1 = Box1::start().await;
    let box2 = json!({"id": 2, "name": "box2", "address": "127.0.0.1:1", "key": "ab".repeat(32)});
    let (status, problem) = box1.post("/v1/members", &box2).await;
    assert_eq!((status, name_of(&problem)), (409, "member-refused"));
    assert!(problem["detail"].as_str().unwrap().contains("token create --advertise"), "{problem}");
}

#[tokio::test]
async fn members_are_listed_added_changed_and_removed() {
    let box1 = Box1::at("127.0.0.1:9").await;
    let (status, list) = box1.get("/v1/members").await;
    assert_eq!((status, list["members"].as_array().unwrap().len()), (200, 1), "{list}");
    let box2 = json!({"id": 2, "name": "box2", "address": "127.0.0.1:1", "key": "ab".repeat(32), "role": "observer"});
    // Its first leader has yet to tell the members: certainly not done before.
    while box1.post("/v1/members", &box2).await.0 == 503 {
        tokio::task::yield_now().await;
    }
    // Nobody runs there: it is a member all the same, and follows when it comes.
    let joined = async || {
        let (_, list) = box1.get("/v1/members").await;
        list["members"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["name"] == "box2" && one["membership"] == "observer")
    };
    while !joined().await {
        tokio::task::yield_now().await;
    }
    for (field, value, status, name) in [
        ("name", json!("box1"), 409, "member-refused"),
        ("id", json!(1), 409, "member-refused"),
        ("id", json!(0), 400, "malformed"),
        ("key", json!("ab"), 400, "malformed"),
        ("address", json!("nowhere"), 400, "malformed"),
        ("name", json!("Box 3"), 400, "malformed"),
    ] {
        let mut bad = json!({"id": 3, "name": "box3", "address": "127.0.0.1:2", "key": "cd".repeat(32)});
        bad[field] = value;
        let (got, problem) = box1.post("/v1/members", &bad).await;
        assert_eq!((got, name_of(&problem)), (status, name), "{problem}");
    }
    let (status, problem) = box1.ask("PUT", "/v1/members/vm9", None, r#"{"role":"voter"}"#).await;
    assert_eq!((status, name_of(&problem)), (404, "no-such-member"));
    let (_, list) = box1.get("/v1/members").await;
    let own = list["members"][0]["name"].as_str().unwrap().to_owned();
    let (status, problem) = box1.ask("DELETE", &format!("/v1/members/{own}"), None, "").await;
    assert_eq!((status, name_of(&problem)), (409, "member-refused"), "the last voter stays");
    assert_eq!(box1.ask("DELETE", "/v1/members/box2", None, "").await.0, 200);
    while joined().await {
        tokio::task::yield_now().await;
    }
    let (status, problem) = box1.post("/v1/leader/transfer", &json!({"to": own})).await;
    assert_eq!((status, &problem["leader"]), (200, &json!(own)), "it leads already");
    let (status, problem) = box1.post("/v1/leader/transfer", &json!({})).await;
    let detail = problem["detail"].as_str().unwrap();
    assert_eq!((status, name_of(&problem)), (409, "member-refused"));
    assert!(detail.contains("no other voter"), "{detail}");
}

#[tokio::test]
async fn tokens_are_made_shown_once_listed_and_revoked() {
    let one = Box1::start().await;
    assert_eq!(one.get("/v1/tokens").await.1, json!({ "tokens": [] }));
    let asked = json!({"ttl": "2h", "uses": 3, "role": "observer"});
    let (status, made) = one.post("/v1/tokens", &asked).await;
    assert_eq!((status, &made["address"], &made["uses_left"]), (200, &json!("10.0.0.11:7400"), &json!(3)));
    let secret = made["token"].as_str().unwrap();
    assert_eq!(crate::join::Token::parse(secret).unwrap().id().to_string(), made["id"]);
    let (_, list) = one.get("/v1/tokens").await;
    let listed = &list["tokens"][0];
    assert_eq!((&listed["role"], &listed["made_by"]), (&json!("observer"), &json!("box1")));
    assert!(!list.to_string().contains(&secret[7..12]), "{list}");
    for (body, name) in [
        (json!({"ttl": "soon"}), "malformed"),
        (json!({"ttl": "400d"}), "malformed"),
        (json!({"uses": 0}), "malformed"),
        (json!({"uses": 2, "replace": "box1"}), "malformed"),
        (json!({"role": "witness"}), "malformed"),
        (json!({"advertise": "nowhere"}), "malformed"),
        (json!({"replace": "box7"}), "no-such-member"),
    ] {
        assert_eq!(name_of(&one.post("/v1/tokens", &body).await.1), name, "{body}");
    }
    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(one.ask("DELETE", &path, None, "").await.0, 200);
    assert_eq!(name_of(&one.ask("DELETE", &path, None, "").await.1), "no-such-token");
    assert_eq!(name_of(&one.ask("DELETE", "/v1/tokens/x", None, "").await.1), "malformed");
}

#[tokio::test]
async fn what_is_for_the_daemon_is_read_before_it_is_passed_on() {
    let one = Box1::start().await;
    for (path, body, name) in [
        ("/v1/init", json!({"site": "Plant 7"}), "malformed"),
        ("/v1/init", json!({"site": "plant7", "advertise": "x"}), "malformed"),
        ("/v1/init", json!({"site": "plant7"}), "outcome-unknown"),
        ("/v1/join", json!({"address": "10.0.0.11", "token": "x"}), "malformed"),
        ("/v1/join", json!({"address": "10.0.0.11:7400", "token": "tally1-x"}), "malformed"),
    ] {
        assert_eq!(name_of(&one.post(path, &body).await.1), name, "{body}");
    }
}
