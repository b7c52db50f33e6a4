use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

/// The exit status of a client's command.
fn status(line: &str) -> u8 {
    run_client(parse(line).unwrap().command).map_or_else(|error| error.exit_status(), |()| 0)
}

#[test]
fn the_arguments_contradict_each_other_nowhere() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_an_example_in_its_help() {
    for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
        let help = command.clone().render_long_help().to_string();
        assert!(help.contains("Example"), "{}:\n{help}", command.get_name());
        assert!(
            command.get_about().is_some_and(|about| !about.to_string().is_empty()),
            "{}",
            command.get_name()
        );
    }
}

#[test]
fn negative_amounts_are_amounts() {
    assert!(matches!(parse("tallyd add stock -3").unwrap().command, Command::Add(_)));
    assert!(parse("tallyd add stock -x").is_err());
}

#[test]
fn wrong_usage_is_2() {
    for line in [
        "tallyd",
        "tallyd count",
        "tallyd add",
        "tallyd add a//b",
        "tallyd add a+b",
        "tallyd get",
        "tallyd get a --timeout 0s",
        "tallyd windows a --last 0",
        "tallyd add a 1 --kind gauge",
        "tallyd add a 1 --unknown",
        "tallyd completions tcsh",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
    for line in
        ["tallyd get a --url https://box1", "tallyd get a --url ftp://x", "tallyd add a x --url 127.0.0.1:1"]
    {
        assert_eq!(status(line), 2, "{line}");
    }
}

#[test]
fn a_box_that_is_not_there_is_3() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for line in ["get a", "series", "windows a", "status", "settings", "watch"] {
        let line = format!("tallyd {line} --url http://{free} --timeout 1s");
        assert_eq!(status(&line), 3, "{line}");
    }
    let line = format!("tallyd add a --url http://{free} --timeout 20ms");
    assert_eq!(status(&line), 3, "{line}");
}
