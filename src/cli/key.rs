//! `tallyd key`: the key by which the others know this box.

use bytes::Bytes;
use clap::{Args, Subcommand};
use hyper::Method;
use serde::Deserialize;

use super::client::{Call, Client, ClientError, Policy, Server};
use super::print_done;
use super::reads::outcome;

/// The key by which the other boxes know this one
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  sudo tallyd key rotate")]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum KeyCommand {
    Rotate(RotateArgs),
}

/// Make a new key for this box: the site agrees on it, and the old one opens nothing any more
///
/// Can be repeated whatever happened before: until the site has agreed it is the same new key.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  sudo tallyd key rotate

The box connects anew to the others, which takes a moment. Exit status: 4 if nobody knows whether the site
has agreed; then run the same command again.")]
struct RotateArgs {
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Rotated {
    name: String,
    number: u64,
    key: String,
}

pub(super) async fn run(args: KeyArgs) -> Result<(), ClientError> {
    let KeyCommand::Rotate(RotateArgs { server }) = args.command;
    let call = Call {
        method: Method::POST,
        path: "/v1/key/rotate".to_owned(),
        body: Bytes::new(),
        key: None,
        policy: Policy::Once,
    };
    let body = Client::new(&server)?.call(&call).await?;
    let Rotated { name, number, key } = outcome(&body)?;
    if server.json {
        return print_done(&format!("{}\n", String::from_utf8_lossy(&body).trim_end()));
    }
    print_done(&format!("{name} (number {number}) has a new key: {key}\n"))
}
