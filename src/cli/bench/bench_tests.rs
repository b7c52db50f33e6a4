use super::*;
use clap::Parser;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    bench: BenchArgs,
}

fn parse(arguments: &str) -> Result<BenchArgs, clap::Error> {
    Command::try_parse_from(std::iter::once("bench").chain(arguments.split_ascii_whitespace()))
        .map(|it| it.bench)
}

#[test]
fn the_defaults_are_the_documented_runs() {
    let args = parse("").unwrap();
    assert_eq!(args.clients, [1, 16, 64, 256]);
    assert_eq!((args.series, args.prefix.as_str(), args.seconds), (1_000, "bench", 10.0));
    let args = parse("--url http://a:1,http://b:2 --clients 5 --pids 1,2").unwrap();
    assert_eq!((args.url.len(), args.clients, args.pids), (2, vec![5], vec![1, 2]));
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    for arguments in [
        "--clients 0",
        "--clients x",
        "--seconds 0",
        "--seconds nan",
        "--seconds -1",
        "--series 0",
        "--prefix a//b",
        "--prefix a+b",
        "--prefix é",
        "--batch 0",
        "--batch 5 --keys",
        "--rate 5",
        "--statsd a:1 --keys",
        "--try-timeout 0",
    ] {
        assert!(parse(arguments).is_err(), "{arguments}");
    }
}

#[tokio::test]
async fn a_site_that_is_not_there_is_an_error_that_names_it() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let args = parse(&format!("--url http://{free} --seconds 0.01 --warm-up 0 --clients 1")).unwrap();
    let error = bench(&args).await.unwrap_err().to_string();
    assert!(error.contains(&free.to_string()) && error.contains("refused"), "{error}");
    let error = bench(&parse("--url ftp://x").unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("ftp://x"), "{error}");
    let args = parse(&format!("--url http://{free} --batch 10 --series 5")).unwrap();
    assert!(bench(&args).await.unwrap_err().to_string().contains("--batch 10"));
}
