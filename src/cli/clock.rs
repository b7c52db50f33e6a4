//! `tallyd clock`: sets site time for an operator.

use bytes::Bytes;
use clap::{Args, Subcommand};
use hyper::Method;
use serde::Deserialize;

use super::client::{Call, Client, ClientError, Policy, Server};
use super::reads::outcome;
use super::{print_done, text};

/// Set site time to what the boxes' clocks say
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd clock step")]
pub(super) struct ClockArgs {
    #[command(subcommand)]
    command: ClockCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum ClockCommand {
    Step(StepArgs),
}

/// Set site time to what the boxes' clocks say, however far ahead or behind
///
/// Site time follows the median of the boxes' clocks by itself: forward at once, back at half speed. A
/// forward jump of more than an hour is held until a majority of the boxes is synchronised and agrees;
/// `tallyd status` shows it. This command confirms that the clocks are right.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd clock step")]
struct StepArgs {
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Stepped {
    was: u64,
    time: u64,
}

pub(super) async fn run(args: ClockArgs) -> Result<(), ClientError> {
    let ClockCommand::Step(StepArgs { server }) = args.command;
    let client = Client::new(&server)?;
    let call = Call {
        method: Method::POST,
        path: "/v1/clock/step".to_owned(),
        body: Bytes::from_static(b"{}"),
        key: None,
        // Said again later, it could mean another time than the one that was looked at.
        policy: Policy::Once,
    };
    let body = client.call(&call).await?;
    let stepped: Stepped = outcome(&body)?;
    if server.json {
        return print_done(&format!("{}\n", String::from_utf8_lossy(&body).trim_end()));
    }
    print_done(&format!("site time: {}, was {}\n", text::time(stepped.time), text::time(stepped.was)))
}
