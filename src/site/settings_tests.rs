use super::*;

fn settings() -> Settings {
    Settings::new(Span::DEFAULT)
}

#[test]
fn the_defaults_fit_together_and_read_back() {
    let settings = settings();
    assert_eq!(settings.check_consistent(0), Ok(()));
    for (key, value, default, help) in settings.list() {
        assert_eq!(value, default, "{key}");
        assert!(!help.is_empty(), "{key}");
        assert_eq!(settings.check(key, &value), Ok(value), "{key}");
        assert_eq!(settings.check(key, "default"), Ok(default), "{key}");
    }
}

#[test]
fn a_value_is_told_in_its_normal_form() {
    let mut settings = settings();
    assert_eq!(settings.set("window.base", " 10s ", 0), Ok("10s".to_string()));
    assert_eq!(settings.set("keys.age", "3600s", 0), Ok("1h".to_string()));
    assert_eq!(settings.keys_age_ms(), 3_600_000);
    let spans = "line1/* = 600s ,a=b=1m,";
    assert_eq!(settings.set("window.spans", spans, 0), Ok("line1/*=10m,a=b=1m".to_string()));
    assert_eq!(settings.set("window.spans", "", 0), Ok(String::new()));
}

#[test]
fn the_first_rule_that_matches_gives_the_span() {
    let mut settings = settings();
    settings.set("window.spans", "a/b=2m,a/*=3m,a/c=4m", 0).unwrap();
    let minutes = |name: &str| settings.span_for(name).as_millis() / 60_000;
    assert_eq!((minutes("a/b"), minutes("a/c"), minutes("a/b/c")), (2, 3, 3));
    assert_eq!((minutes("a"), minutes("ab/c"), minutes("b")), (1, 1, 1));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    let error = settings().check("window.graze", "1s").unwrap_err();
    assert!(error.contains("window.grace"), "{error}");
    let error = settings().check("widow.spans", "").unwrap_err();
    assert!(error.contains("window.spans"), "{error}");
}

#[test]
fn what_does_not_fit_together_is_refused_and_changes_nothing() {
    let mut settings = settings();
    settings.set("window.spans", "a=10m", 0).unwrap();
    let before = settings.clone();
    for (key, value, why) in [
        ("window.base", "7m", "multiple"),
        ("window.base", "1ms", "between"),
        ("window.base", "32d", "between"),
        ("window.spans", "a=90s", "multiple"),
        ("window.spans", "a", "PATTERN=SPAN"),
        ("window.spans", "a/*/b=2m", "last segment"),
        ("window.spans", "a//*=2m", "empty segment"),
        ("window.spans", "/*=2m", "must not be empty"),
        ("window.spans", "a=0s", "a span must be from"),
        ("window.grace", "2m", "between"),
        ("series.max", "30000", "outbox.summaries_max must be at least 121000"),
        ("series.max", "0", "between"),
        ("outbox.summaries_max", "80000", "at least 81000"),
        ("outbox.bytes_max", "1MiB", "outbox.bytes_max must be at least"),
        ("outbox.numbered_max", "50000", "at least 130000"),
        ("keys.age", "soon", "such as"),
    ] {
        let error = settings.set(key, value, 0).unwrap_err();
        assert!(error.contains(why), "{key}={value}: {error}");
        assert_eq!(settings, before, "{key}={value}");
    }
    settings.set("window.spans", "", 0).unwrap();
    settings.set("window.grace", "1m", 0).unwrap();
    assert!(settings.set("window.base", "500ms", 0).unwrap_err().contains("window.grace"));
}

#[test]
fn series_that_are_there_count_for_the_outbox_too() {
    let mut settings = settings();
    settings.set("series.max", "10", 20_000).unwrap();
    assert!(settings.set("outbox.summaries_max", "2000", 20_000).unwrap_err().contains("81000"));
    assert_eq!(settings.set("outbox.summaries_max", "2000", 10), Ok("2000".to_string()));
}

#[test]
fn too_many_rules_and_too_long_values_are_refused() {
    let rules: Vec<String> = (0..65).map(|n| format!("s{n}=2m")).collect();
    assert!(settings().check("window.spans", &rules.join(",")).unwrap_err().contains("64 rules"));
    assert!(settings().check("window.spans", &"x".repeat(9000)).unwrap_err().contains("8192"));
    assert!(settings().check(&"x".repeat(9000), "1").unwrap_err().len() < 200);
}
