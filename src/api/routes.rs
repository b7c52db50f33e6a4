//! What the API answers, and the role that each request needs: this table decides both, and what is not in it is not
//! answered.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post, put};

use super::{
    ADDS, ApiState, access, admin, backup, clock, members, metrics, page, reads, reports, series, settings,
    tokens, watch,
};
use crate::site::AccessRole;

/// Open to everybody: probes of health have no token, and the page and the description contain nothing of the site (the
/// page asks for a token and then fetches).
const OPEN: Option<AccessRole> = None;
const READ: Option<AccessRole> = Some(AccessRole::Read);
const COUNT: Option<AccessRole> = Some(AccessRole::Count);
const ADMIN: Option<AccessRole> = Some(AccessRole::Admin);

type Methods = MethodRouter<Arc<ApiState>>;

/// A path with its methods, the role that each needs, and who answers.
pub(crate) struct Route {
    pub(super) path: &'static str,
    pub(super) methods: &'static [(&'static str, Option<AccessRole>)],
    /// `None`: [`super::adds`], past the router.
    answers: Option<fn() -> Methods>,
}

const fn route(
    path: &'static str,
    methods: &'static [(&'static str, Option<AccessRole>)],
    answers: fn() -> Methods,
) -> Route {
    Route { path, methods, answers: Some(answers) }
}

const fn adds(path: &'static str) -> Route {
    Route { path, methods: &[("POST", COUNT)], answers: None }
}

/// All of them; of two that a path fits, the first holds.
pub(super) static ROUTES: &[Route] = &[
    route("/", &[("GET", OPEN)], || get(page::page)),
    route("/page.js", &[("GET", OPEN)], || get(page::script)),
    route("/page.css", &[("GET", OPEN)], || get(page::style)),
    route("/openapi.json", &[("GET", OPEN)], || get(page::openapi)),
    route("/healthz", &[("GET", OPEN)], || get(reads::healthz)),
    route("/readyz", &[("GET", OPEN)], || get(reads::readyz)),
    route("/metrics", &[("GET", READ)], || get(metrics::metrics)),
    route("/v1/status", &[("GET", READ)], || get(reads::status)),
    route("/v1/series", &[("GET", READ), ("DELETE", ADMIN)], || get(reads::page).delete(series::remove_all)),
    route("/v1/series/{*series}", &[("GET", READ), ("DELETE", ADMIN), ("POST", ADMIN)], || {
        get(reads::series).delete(series::remove).post(series::rename)
    }),
    route("/v1/backup", &[("GET", ADMIN)], || get(backup::backup)),
    route("/v1/windows/{*series}", &[("GET", READ)], || get(reads::windows)),
    route("/v1/watch", &[("GET", READ)], || get(watch::watch)),
    route("/v1/settings", &[("GET", READ)], || get(settings::list)),
    route("/v1/settings/{key}", &[("PUT", ADMIN)], || put(settings::set)),
    route("/v1/members", &[("GET", READ), ("POST", ADMIN)], || get(members::list).post(members::add)),
    route("/v1/members/{name}", &[("PUT", ADMIN), ("DELETE", ADMIN)], || {
        put(members::set_role).delete(members::remove)
    }),
    route("/v1/tokens", &[("GET", ADMIN), ("POST", ADMIN)], || get(tokens::list).post(tokens::create)),
    route("/v1/tokens/{id}", &[("DELETE", ADMIN)], || delete(tokens::revoke)),
    route("/v1/access", &[("GET", ADMIN), ("POST", ADMIN)], || get(access::list).post(access::create)),
    route("/v1/access/{name}", &[("DELETE", ADMIN)], || delete(access::revoke)),
    route("/v1/init", &[("POST", ADMIN)], || post(admin::init)),
    route("/v1/join", &[("POST", ADMIN)], || post(admin::join)),
    route("/v1/key/rotate", &[("POST", ADMIN)], || post(admin::rotate_key)),
    route("/v1/leader/transfer", &[("POST", ADMIN)], || post(members::transfer)),
    route("/v1/clock/step", &[("POST", ADMIN)], || post(clock::step)),
    route("/v1/sources/{name}/epochs", &[("POST", COUNT)], || post(reports::open_epoch)),
    route("/v1/reports", &[("POST", COUNT)], || post(reports::report)),
    adds("/v1/counters/{*series}"),
    adds("/v1/updowns/{*series}"),
    adds("/v1/samples/{*series}"),
];

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// This role; `None`: no role.
    Role(Option<AccessRole>),
    /// The path has no such method. Known to those who may read.
    NoSuchMethod(&'static Route),
    /// No such path. The same.
    NoSuchPath,
}

impl Need {
    /// The role that is needed; `None`: none.
    pub(crate) fn role(self) -> Option<AccessRole> {
        match self {
            Need::Role(role) => role,
            Need::NoSuchMethod(_) | Need::NoSuchPath => READ,
        }
    }
}

/// What a request needs, of whatever serves it.
pub(crate) fn need(method: &Method, path: &str) -> Need {
    if *method == Method::POST && ADDS.iter().any(|(prefix, _)| path.starts_with(prefix)) {
        return Need::Role(COUNT);
    }
    let Some(route) = ROUTES.iter().find(|route| fits(route.path, path)) else { return Need::NoSuchPath };
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let found = route.methods.iter().find(|(known, _)| *known == method);
    found.map_or(Need::NoSuchMethod(route), |(_, role)| Need::Role(*role))
}

/// Whether a path is one of those that a pattern of the router stands for.
fn fits(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(part), Some(_)) if part.starts_with("{*") => return true,
            (Some(part), Some(given)) if part == given || (part.starts_with('{') && !given.is_empty()) => {}
            _ => return false,
        }
    }
}

impl Route {
    /// Its methods, as the header `Allow` has them.
    pub(super) fn allow(&self) -> String {
        let methods = self.methods.iter().map(|(method, _)| match *method {
            "GET" => "GET, HEAD",
            other => other,
        });
        methods.collect::<Vec<_>>().join(", ")
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Route) -> bool {
        self.path == other.path
    }
}

impl Eq for Route {}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.path)
    }
}

/// The router of a box: exactly the table.
pub(super) fn router(shared: Arc<ApiState>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        if let Some(answers) = route.answers {
            router = router.route(route.path, answers());
        }
    }
    router.fallback(reads::not_found).with_state(shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn of(method: &str, path: &str) -> Need {
        need(&method.parse().unwrap(), path)
    }

    /// A path for a pattern.
    fn example(pattern: &str) -> String {
        let parts = pattern.split('/').map(|part| match part {
            part if part.starts_with("{*") => "a/b%2Fc",
            part if part.starts_with('{') => "x",
            part => part,
        });
        parts.collect::<Vec<_>>().join("/")
    }

    #[test]
    fn every_route_is_found_by_its_own_path_and_needs_the_role_of_its_row() {
        for route in ROUTES {
            for (method, role) in route.methods {
                assert_eq!(of(method, &example(route.path)), Need::Role(*role), "{method} {}", route.path);
            }
            assert_eq!(of("PATCH", &example(route.path)), Need::NoSuchMethod(route));
        }
    }

    #[test]
    fn whatever_the_description_has_is_in_the_table_and_the_other_way_round() {
        let api: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let mut described = std::collections::BTreeSet::new();
        for (path, methods) in api["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys().filter(|key| *key != "parameters") {
                let method = method.to_uppercase();
                assert!(
                    matches!(of(&method, &example(&path.replace("{series}", "{*series}"))), Need::Role(_)),
                    "{method} {path}"
                );
                described.insert((method, example(&path.replace("{series}", "{*series}"))));
            }
        }
        for route in ROUTES {
            for (method, _) in route.methods {
                let is_it = |(known, path): &(String, String)| known == method && fits(route.path, path);
                assert!(described.iter().any(is_it), "{method} {route:?}");
            }
        }
    }

    #[test]
    fn what_changes_the_site_needs_an_admin_and_what_changes_nothing_does_not() {
        let counts = ["/v1/sources/{name}/epochs", "/v1/reports"];
        for route in ROUTES {
            for (method, role) in route.methods {
                let is_count = counts.contains(&route.path) || route.answers.is_none();
                match *method {
                    _ if is_count => assert_eq!(*role, COUNT, "{route:?}"),
                    "GET" => assert!(
                        *role <= READ
                            || ["tokens", "access", "backup"]
                                .iter()
                                .any(|secret| route.path.contains(secret))
                    ),
                    _ => assert_eq!(*role, ADMIN, "{method} {route:?}"),
                }
            }
        }
    }

    #[test]
    fn odd_paths_need_no_less_than_what_they_could_be_taken_for() {
        for (method, path) in [("POST", "/v1/members/"), ("DELETE", "/v1/members//x"), ("GET", "//v1/status")]
        {
            assert!(matches!(of(method, path), Need::NoSuchPath), "{method} {path}");
        }
        assert_eq!(of("HEAD", "/v1/tokens"), Need::Role(ADMIN));
        assert_eq!(of("GET", "/v1/members"), Need::Role(READ));
        assert_eq!(of("POST", "/v1/counters/x"), Need::Role(COUNT));
        assert_eq!(Need::NoSuchPath.role(), READ);
    }
}
