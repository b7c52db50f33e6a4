//! The status, health and metrics of a witness over HTTP, all read-only.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{Method, Request, Response, header};
use hyper::body::Incoming;
use serde::Serialize;
use tally_core::id::NodeId;
use tally_core::raft::MemberRole;

use super::slot::SlotShared;
use crate::api::{Answers, ApiConfig, Guard, Name, Problem, Text, Via, json_response, need, typed_response};
use crate::dropped::REASONS;
use crate::site::{AccessHash, AccessRole};
use crate::transport::PeerStatus;

/// All slots of this process.
#[derive(Debug)]
pub(super) struct Overview {
    pub(super) sites: Vec<Arc<SlotShared>>,
    pub(super) refused: Vec<Refused>,
    started: Instant,
}

/// A slot that cannot be served.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Refused {
    pub(super) directory: PathBuf,
    pub(super) why: String,
}

/// The answer of `GET /v1/status` at a witness.
#[derive(Clone, Debug, Serialize)]
struct WitnessStatus {
    /// Always that of a witness.
    role: MemberRole,
    /// Whether all sites are served.
    ready: bool,
    sites: Vec<SiteStatus>,
    /// Slots that cannot be served, and why.
    refused: Vec<Refused>,
    uptime_s: u64,
    version: &'static str,
    pid: u32,
}

/// A slot.
#[derive(Clone, Debug, Serialize)]
struct SiteStatus {
    site: String,
    site_id: String,
    /// The witness's number in the site.
    node: u64,
    /// Its name there.
    name: String,
    address: String,
    /// The latest term in which it promised something.
    term: u64,
    /// For whom it voted in that term.
    voted_for: Option<String>,
    /// The term and subterm of the latest replication set that it counted for.
    last_term: u64,
    subterm: u64,
    /// The boxes of that set.
    voters: Vec<String>,
    /// Records written since the witness was made.
    writes: u64,
    /// Starts since the witness was made.
    boot: u64,
    /// Answers sent; this and all later figures count since this process started.
    answers: u64,
    ignored: u64,
    malformed: u64,
    failures: u64,
    /// Why the latest record could not be written.
    trouble: Option<String>,
    peers: Vec<PeerStatus>,
}

impl Refused {
    /// The reason, with the slot that it concerns.
    fn text(&self) -> String {
        let slot = self.directory.display().to_string();
        if self.why.contains(&slot) { self.why.clone() } else { format!("{slot}: {}", self.why) }
    }
}

impl Default for Overview {
    fn default() -> Overview {
        Overview { sites: Vec::new(), refused: Vec::new(), started: Instant::now() }
    }
}

impl Overview {
    /// The state in a line, for systemd; trouble comes first.
    pub(super) fn line(&self) -> String {
        let not = self.why_not_ready().map_or(String::new(), |why| format!("{why}; "));
        let writes: u64 = self.sites.iter().map(|site| site.view().writes).sum();
        format!("{not}witness of {} sites, {writes} records written", self.sites.len())
    }

    fn why_not_ready(&self) -> Option<String> {
        if let Some(refused) = self.refused.first() {
            return Some(refused.text());
        }
        let trouble = |site: &Arc<SlotShared>| {
            Some(format!("site {}: {}", site.identity.site, site.view().trouble.clone()?))
        };
        self.sites.iter().find_map(trouble)
    }

    fn status(&self) -> WitnessStatus {
        WitnessStatus {
            role: MemberRole::Witness,
            ready: self.why_not_ready().is_none(),
            sites: self.sites.iter().map(|site| SiteStatus::of(site)).collect(),
            refused: self.refused.clone(),
            uptime_s: self.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
        }
    }

    fn metrics(&self) -> Text {
        let sites: Vec<SiteStatus> = self.sites.iter().map(|site| SiteStatus::of(site)).collect();
        let mut text = Text::default();
        text.family("tallyd_build_info", "gauge", "Always 1; a label gives the version.");
        text.sample("tallyd_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        text.gauge(
            "tallyd_ready",
            "1 if the witness serves all its sites.",
            u8::from(self.why_not_ready().is_none()),
        );
        text.gauge(
            "tallyd_witness_refused_slots",
            "Sites that the witness cannot serve.",
            self.refused.len(),
        );
        text.gauge(
            "tallyd_uptime_seconds",
            "Time since this process started.",
            self.started.elapsed().as_secs(),
        );
        type Figure = (&'static str, &'static str, &'static str, fn(&SiteStatus) -> u64);
        let connected = |site: &SiteStatus| site.peers.iter().filter(|peer| peer.connected).count() as u64;
        let figures: [Figure; 9] = [
            (
                "tallyd_witness_writes_total",
                "counter",
                "Records written since the witness was made.",
                |site| site.writes,
            ),
            ("tallyd_witness_answers_total", "counter", "Messages answered.", |site| site.answers),
            ("tallyd_witness_ignored_total", "counter", "Messages ignored.", |site| site.ignored),
            ("tallyd_witness_malformed_total", "counter", "Malformed frames.", |site| site.malformed),
            ("tallyd_witness_failures_total", "counter", "Records that could not be written.", |site| {
                site.failures
            }),
            (
                "tallyd_witness_term",
                "gauge",
                "Latest term in which the witness promised something.",
                |site| site.term,
            ),
            ("tallyd_witness_last_term", "gauge", "Term of the latest replication set.", |site| {
                site.last_term
            }),
            ("tallyd_witness_subterm", "gauge", "Subterm of the latest replication set.", |site| {
                site.subterm
            }),
            ("tallyd_witness_connected_boxes", "gauge", "Boxes connected.", connected),
        ];
        for (name, kind, help, figure) in figures {
            text.family(name, kind, help);
            for site in &sites {
                text.sample(name, &[("site", site.site.as_str()), ("site_id", &site.site_id)], figure(site));
            }
        }
        self.refused_by_reason(&mut text);
        crate::api::log_figures(&mut text);
        text
    }
}

impl Overview {
    fn refused_by_reason(&self, text: &mut Text) {
        let labels = |site: &Arc<SlotShared>| (site.identity.site.clone(), site.identity.site_id.to_string());
        let name = "tallyd_witness_refused_total";
        text.family(name, "counter", "Ignored messages of members, by reason.");
        for site in &self.sites {
            let (of, id) = labels(site);
            for reason in REASONS {
                let labels = [("site", of.as_str()), ("site_id", &id), ("reason", reason.as_str())];
                text.sample(name, &labels, site.dropped.count(reason));
            }
        }
        let name = "tallyd_peer_refused_total";
        text.family(name, "counter", "Connections with peers that either side refused, by reason.");
        for site in &self.sites {
            let (of, id) = labels(site);
            for (reason, value) in site.transport.metrics().refusals() {
                text.sample(name, &[("site", of.as_str()), ("site_id", &id), ("reason", reason)], value);
            }
        }
    }
}

impl SiteStatus {
    fn of(shared: &SlotShared) -> SiteStatus {
        let identity = &shared.identity;
        let view = shared.view().clone();
        let members = shared.members().clone();
        let name = |id: NodeId| {
            let member = members.iter().find(|member| member.id == id);
            member.map_or_else(|| format!("box {id}"), |member| member.name.clone())
        };
        SiteStatus {
            site: identity.site.clone(),
            site_id: identity.site_id.to_string(),
            node: identity.node,
            name: identity.me().name.clone(),
            address: identity.me().address.clone(),
            term: view.record.term.0,
            voted_for: view.record.vote.map(name),
            last_term: view.record.last_term.0,
            subterm: view.record.last_subterm.0,
            voters: view.record.voters.iter().map(name).collect(),
            writes: view.writes,
            boot: view.boot,
            answers: shared.answers.get(),
            ignored: shared.dropped.sum(false),
            malformed: shared.dropped.sum(true),
            failures: shared.failures.get(),
            trouble: view.trouble,
            peers: shared.transport.peers(),
        }
    }
}

/// Answers the requests.
#[derive(Clone, Debug)]
pub(super) struct Page {
    overview: Arc<Overview>,
    guard: Arc<Guard>,
}

impl Page {
    pub(super) fn new(config: &ApiConfig, overview: Arc<Overview>) -> Page {
        Page { overview, guard: Arc::new(Guard::new(config)) }
    }

    fn get(&self, path: &str) -> Result<Response<Body>, Problem> {
        match path {
            "/healthz" => Ok(typed_response("text/plain; charset=utf-8", "alive\n")),
            "/readyz" => match self.overview.why_not_ready() {
                None => Ok(typed_response("text/plain; charset=utf-8", "ready\n")),
                Some(why) => Err(Problem::new(Name::NotReady, why)),
            },
            "/metrics" => Ok(self.overview.metrics().into_response()),
            "/v1/status" => {
                let text = serde_json::to_string(&self.overview.status());
                Ok(json_response(text.expect("a status has only texts and numbers")))
            }
            path => {
                let path: String = path.chars().take(200).collect();
                let detail = format!(
                    "a witness has no resource {path}: it has /v1/status, /metrics, /healthz and /readyz; \
                     add and read counts at the site's boxes"
                );
                Err(Problem::new(Name::NotFound, detail))
            }
        }
    }
}

impl Answers for Page {
    async fn answer(&self, request: Request<Incoming>, via: Via) -> Response<Body> {
        let need = need(request.method(), request.uri().path()).role().min(Some(AccessRole::Read));
        // A witness has no part of the site that knows tokens.
        if let Err(problem) = self.guard.check(&request, via, need, |_: &AccessHash| None) {
            return problem.into_response();
        }
        let head = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            _ => {
                let detail = format!("{} is not allowed at a witness; allowed: GET, HEAD", request.method());
                let mut response = Problem::new(Name::MethodNotAllowed, detail).into_response();
                response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
                return response;
            }
        };
        let response = self.get(request.uri().path()).unwrap_or_else(Problem::into_response);
        if head { response.map(|_| Body::empty()) } else { response }
    }

    /// Does nothing: a flood cannot keep this listener from any other work.
    fn turned_away(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Each member is described, and each that is described is there.
    fn assert_described(schema: &Value, told: &Value) {
        let told: Vec<&String> = told.as_object().unwrap().keys().collect();
        let described: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(told, described);
        assert_eq!(schema["required"].as_array().unwrap().len(), described.len());
    }

    #[test]
    fn a_slot_that_is_not_served_is_named_by_its_directory() {
        let refused = |why: &str| Refused { directory: PathBuf::from("/w/shop3"), why: why.to_owned() };
        let mut overview = Overview::default();
        overview.refused.push(refused("node.name is \"a\""));
        assert_eq!(overview.why_not_ready().unwrap(), "/w/shop3: node.name is \"a\"");
        assert!(overview.line().starts_with("/w/shop3: node.name"), "{}", overview.line());
        overview.refused[0] = refused("/w/shop3/witness.state: torn");
        assert_eq!(overview.why_not_ready().unwrap(), "/w/shop3/witness.state: torn");
    }

    #[test]
    fn the_description_of_the_api_has_the_witnesss_status() {
        let api: Value = serde_json::from_str(include_str!("../api/openapi.json")).unwrap();
        let schema = &api["components"]["schemas"]["WitnessStatus"];
        let overview = Overview::default();
        assert_described(schema, &serde_json::to_value(overview.status()).unwrap());
        let site = SiteStatus {
            site: "plant7".to_owned(),
            site_id: String::new(),
            node: 3,
            name: String::new(),
            address: String::new(),
            term: 1,
            voted_for: None,
            last_term: 1,
            subterm: 0,
            voters: Vec::new(),
            writes: 0,
            boot: 1,
            answers: 0,
            ignored: 0,
            malformed: 0,
            failures: 0,
            trouble: None,
            peers: Vec::new(),
        };
        let items = |key: &str| &schema["properties"][key]["items"];
        assert_described(items("sites"), &serde_json::to_value(site).unwrap());
        let refused = Refused { directory: PathBuf::new(), why: String::new() };
        assert_described(items("refused"), &serde_json::to_value(refused).unwrap());
    }
}
