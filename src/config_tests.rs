use super::*;

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tallyd.toml");
    std::fs::write(&file, text).unwrap();
    let value = |name: &str| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    Config::load(Some(&file), value).map_err(|error| error.to_string())
}

#[test]
fn the_commented_example_says_the_defaults() {
    let example = include_str!("../packaging/examples/tallyd.toml");
    assert_eq!(load(example, &[]).unwrap(), Config::default());
    // What is commented out with a default must be that default too.
    let uncommented: String =
        example.lines().map(|line| line.strip_prefix("#= ").unwrap_or(line).to_owned() + "\n").collect();
    assert_ne!(uncommented, example);
    assert_eq!(load(&uncommented, &[]).unwrap(), Config::default());
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let error = load("[api]\n\nlisten = \"127.0.0.1:1\"\ntoken_fil = \"x\"\n", &[]).unwrap_err();
    assert!(error.contains("line 4"), "{error}");
    assert!(error.contains("\"token_fil\"") && error.contains("\"token_file\""), "{error}");
}

#[test]
fn the_environment_overrides_and_is_named_when_it_is_wrong() {
    let config = load("[api]\nlisten = \"127.0.0.1:1\"\n", &[("TALLYD_API_LISTEN", "127.0.0.1:2")]).unwrap();
    assert_eq!(config.api.listen.port(), 2);
    let error = load("", &[("TALLYD_INGEST_STATSD_LISTEN", "nowhere")]).unwrap_err();
    assert!(error.contains("TALLYD_INGEST_STATSD_LISTEN") && error.contains("nowhere"), "{error}");
    let off = load("", &[("TALLYD_INGEST_STATSD_LISTEN", "off")]).unwrap();
    assert_eq!(off.ingest.statsd.listen.addresses, []);
    for off in ["\"\"", "\"off\"", "[]"] {
        let off = load(&format!("[ingest.statsd]\nlisten = {off}\n"), &[]).unwrap();
        assert_eq!(off.ingest.statsd.listen.addresses, []);
    }
}

#[test]
fn an_empty_variable_is_not_set_whichever_it_is() {
    for (key, _) in keys() {
        for empty in ["", "  "] {
            let file = "[api]\nconnections_max = 5\n";
            assert_eq!(load(file, &[(&variable(key), empty)]), load(file, &[]), "{key}");
        }
    }
}

#[test]
fn a_name_that_cannot_be_one_is_refused_where_it_is_said() {
    let error = load("[node]\nname = \"Box 1\"\n", &[]).unwrap_err();
    assert!(error.contains("line 2: node.name: \"Box 1\" is not a name"), "{error}");
    let error = load("", &[("TALLYD_NODE_NAME", "Box_1")]).unwrap_err();
    assert!(error.starts_with("TALLYD_NODE_NAME: ") && error.contains("\"Box_1\" is not a name"), "{error}");
    assert_eq!(load("", &[("TALLYD_NODE_NAME", "box-1")]).unwrap().node.name.as_deref(), Some("box-1"));
}

#[test]
fn statsd_listens_on_one_address_or_several() {
    let listen = |text: &str| {
        let listen =
            load(&format!("[ingest.statsd]\nlisten = {text}\n"), &[]).map(|config| config.ingest.statsd);
        listen.map(|section| (section.listen.addresses, section.listen.is_default))
    };
    let addresses =
        |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
    let both = addresses(&["127.0.0.1:8125", "[::1]:8125"]);
    let default = load("", &[]).unwrap().ingest.statsd.listen;
    assert_eq!((default.addresses, default.is_default), (both.clone(), true));
    assert_eq!(listen(r#"["127.0.0.1:8125", "[::1]:8125"]"#), Ok((both.clone(), false)), "asked for");
    assert_eq!(listen(r#""10.0.0.1:1""#), Ok((addresses(&["10.0.0.1:1"]), false)));
    assert_eq!(listen(r#""""#), Ok((vec![], false)));
    assert_eq!(listen("[]"), Ok((vec![], false)));
    for wrong in ["1", r#"["x"]"#, r#"[["127.0.0.1:1"]]"#] {
        assert!(listen(wrong).unwrap_err().contains("127.0.0.1:8125"), "{wrong}");
    }
    let variable = |text: &str| load("", &[("TALLYD_INGEST_STATSD_LISTEN", text)]).unwrap().ingest.statsd;
    assert_eq!(variable("127.0.0.1:8125, [::1]:8125").listen.addresses, both);
    assert_eq!(variable("10.0.0.1:1").listen.addresses, addresses(&["10.0.0.1:1"]));
    assert!(!variable("10.0.0.1:1").listen.is_default);
}

#[test]
fn a_certificate_needs_its_key_and_what_anybody_may_do_is_nothing_or_read() {
    for one in ["tls_cert = \"/c\"", "tls_key = \"/k\""] {
        let error = load(&format!("[api]\n{one}\n"), &[]).unwrap_err();
        assert!(error.contains("api.tls_cert and api.tls_key go together"), "{error}");
    }
    let error = load("[api]\nanonymous = \"write\"\n", &[]).unwrap_err();
    assert!(error.contains("api.anonymous") && error.contains("`none` or `read`"), "{error}");
    let api = load("[api]\nlisten = \"0.0.0.0:7480\"\nanonymous = \"read\"\n", &[]).unwrap().api;
    assert_eq!(api.anonymous, Anonymous::Read);
    let variable = load("", &[("TALLYD_API_SOCKET", "/run/x.sock")]).unwrap().api;
    assert_eq!((variable.socket, variable.anonymous), (Some("/run/x.sock".into()), Anonymous::None));
}

#[test]
fn a_bound_on_storage_below_the_least_is_refused_with_the_least() {
    let error = load("", &[("TALLYD_STORAGE_BYTES_MAX", "7MiB")]).unwrap_err();
    assert!(error.contains("storage.bytes_max must be at least 8MiB"), "{error}");
    assert_eq!(load("[storage]\nbytes_max = \"8MiB\"\n", &[]).unwrap().storage.bytes_max, Some(8 << 20));
    assert_eq!(load("", &[]).unwrap().storage.bytes_max, None);
}

#[test]
fn timeouts_that_cannot_work_are_refused() {
    for wrong in ["min = \"10ms\"", "max = \"11m\"", "max = \"100ms\"", "min = \"11s\""] {
        let error = load(&format!("[cluster]\nelection_timeout_{wrong}\n"), &[]).unwrap_err();
        assert!(error.contains("election_timeout_m"), "{error}");
    }
    let fixed = "[cluster]\nelection_timeout_min = \"1s\"\nelection_timeout_max = \"1s\"\n";
    assert!(load(fixed, &[]).is_ok());
    let error = load("[commit]\ninterval = \"fast\"\n", &[]).unwrap_err();
    assert!(error.contains("line 2"), "{error}");
}

/// The keys of a section, of which the reader tells when it meets one that there is not; `None`: no section.
fn keys_of(section: &str) -> Option<Vec<String>> {
    let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
    let error = toml::from_str::<Config>(&format!("{header}no-key = 1\n")).unwrap_err();
    let message = error.message();
    let known = message.split('`').skip(1).step_by(2).skip(1).map(str::to_owned).collect();
    message.starts_with("unknown field").then_some(known)
}

/// All keys that the reader knows, with their sections.
fn all_keys(section: &str) -> Vec<String> {
    let join = |key: String| if section.is_empty() { key } else { format!("{section}.{key}") };
    let names = keys_of(section).unwrap().into_iter().map(join);
    names.flat_map(|name| if keys_of(&name).is_some() { all_keys(&name) } else { vec![name] }).collect()
}

#[test]
fn each_key_can_be_overridden_by_the_environment() {
    let mut known = all_keys("");
    known.retain(|key| key != "ingest.poll");
    known.sort_unstable();
    let mut listed: Vec<&str> = keys().map(|(key, _)| key).collect();
    listed.sort_unstable();
    assert_eq!(known, listed);
    // What the example says in a file can be said by the environment, too.
    let example = include_str!("../packaging/examples/tallyd.toml");
    for (key, says) in keys() {
        let (section, name) = key.rsplit_once('.').unwrap();
        let (_, rest) = example.split_once(&format!("[{section}]\n")).unwrap();
        let lines = rest.lines().take_while(|line| !line.starts_with('['));
        let line = lines
            .map(|line| line.trim_start_matches(['#', '=', ' ']))
            .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('=')));
        let line = line.unwrap_or_else(|| panic!("{key} is not in the example"));
        let value = line.parse::<toml::Table>().unwrap()[name].clone();
        let text = match (says, &value) {
            (Says::Text, toml::Value::String(text)) => text.clone(),
            (Says::Number, toml::Value::Integer(number)) => number.to_string(),
            (Says::Texts, toml::Value::Array(texts)) => {
                texts.iter().map(|one| one.as_str().unwrap()).collect::<Vec<_>>().join(", ")
            }
            other => panic!("{key}: {other:?}"),
        };
        // These two go together.
        let beside = match key {
            "api.tls_cert" => "[api]\ntls_key = \"/k\"\n",
            "api.tls_key" => "[api]\ntls_cert = \"/c\"\n",
            _ => "",
        };
        let head = if beside.is_empty() { format!("[{section}]\n") } else { beside.to_owned() };
        let by_file = load(&format!("{head}{line}\n"), &[]).unwrap();
        assert_eq!(load(beside, &[(&variable(key), &text)]).unwrap(), by_file, "{key}");
    }
}

#[test]
fn the_environment_says_numbers_and_lists_too() {
    let config = load("[api]\nconnections_max = 5\n", &[("TALLYD_API_CONNECTIONS_MAX", "7")]).unwrap();
    assert_eq!(config.api.connections_max, 7);
    for (name, value) in [("TALLYD_API_CONNECTIONS_MAX", "many"), ("TALLYD_UPSTREAM_FORMAT", "json,xml")] {
        let error = load("", &[(name, value)]).unwrap_err();
        assert!(error.starts_with(name), "{error}");
    }
}

#[test]
fn a_variable_that_overrides_no_key_is_a_warning_with_the_nearest_that_there_is() {
    let unknown = |names: &[&str]| unknown_variables(names.iter().map(|name| (*name).to_owned()));
    let warning = unknown(&["HOME", "TALLYD_API_LISEN", "TALLYD_API_LISTEN"]).unwrap();
    assert!(
        warning.ends_with("key: TALLYD_API_LISEN (the nearest known name is TALLYD_API_LISTEN)"),
        "{warning}"
    );
    // What Kubernetes sets for a service that is called tallyd-api.
    let service = ["TALLYD_API_SERVICE_HOST", "TALLYD_API_PORT", "TALLYD_API_PORT_7480_TCP_ADDR"];
    let warning = unknown(&service).unwrap();
    assert!(service.iter().all(|name| warning.contains(name)), "{warning}");
    let many: Vec<String> = (0..500).map(|number| format!("TALLYD_X{number}")).collect();
    let warning = unknown_variables(many.into_iter()).unwrap();
    assert!(warning.ends_with(" and 480 more") && warning.len() < 2000, "{warning}");
    // These are for others.
    let others = ["TALLYD_URL", "TALLYD_TOKEN_FILE", "TALLYD_LOG", "TALLYD_TEST_CLOCK", "TALLYD_SIM_SEED"];
    assert_eq!(unknown(&others), None);
    assert_eq!(unknown(&["TALLYDX", "TALLYD_NODE_NAME", "TALLYD_API_CONNECTIONS_MAX"]), None);
}

#[test]
fn a_value_that_is_wrong_is_named_with_its_key_and_an_example() {
    for (text, parts) in [
        ("[cluster]\nlisten = \"nowhere\"\n", ["line 2: cluster.listen: \"nowhere\"", "[::]:7400"]),
        ("[api]\n\nlisten = \"localhost:1\"\n", ["line 3: api.listen: \"localhost:1\"", "127.0.0.1:7480"]),
        ("[ingest.statsd]\nlisten = \"8125\"\n", ["ingest.statsd.listen: \"8125\"", "127.0.0.1:8125"]),
        ("[commit]\ninterval = \"fast\"\n", ["commit.interval: \"fast\"", "500ms"]),
        ("[storage]\nbytes_max = \"8MB\"\n", ["line 2: storage.bytes_max: \"8MB\"", "64MiB"]),
        ("[api]\nconnections_max = \"a\"\n", ["api.connections_max: ", "expected"]),
    ] {
        let error = load(text, &[]).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let error = load("", &[("TALLYD_CLUSTER_LISTEN", "nowhere")]).unwrap_err();
    assert!(error.starts_with("TALLYD_CLUSTER_LISTEN: ") && error.contains("[::]:7400"), "{error}");
}
