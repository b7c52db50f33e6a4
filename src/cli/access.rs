//! `tallyd access`: tokens of the API, with roles.

use std::io::Write;

use bytes::Bytes;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use hyper::Method;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Call, Client, ClientError, Policy, Server};
use super::members::member_name;
use super::reads::{outcome, parse_answer, print_json};
use super::text::{Side, Table};
use super::token::{life, span};
use super::{print, print_done, text};
use crate::random;
use crate::site::AccessRole;

/// How long a link is good if nothing is said.
const LINK_TTL: &str = "90d";

/// Make, list or revoke the tokens by which others use the API
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd access create press3 --role count > press3.token
  tallyd access link                     prints a link and a QR code for a phone
  tallyd access revoke press3

A token is good at every box of the site. The site keeps a hash of it, so it is shown once.")]
pub(super) struct AccessArgs {
    #[command(subcommand)]
    command: AccessCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum AccessCommand {
    Create(CreateArgs),
    /// List the tokens that are good, without their secrets
    #[command(after_help = "\
Example:
  tallyd access list")]
    List(ListArgs),
    Revoke(RevokeArgs),
    Link(LinkArgs),
}

/// Make a token; it is shown once, on standard output
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd access create press3 --role count > press3.token
  tallyd access create prometheus --role read --ttl 90d")]
struct CreateArgs {
    /// By which you know it: 1 to 32 of a-z 0-9 -
    #[arg(value_parser = member_name)]
    name: String,
    /// What its holder may do: read, count (and read), admin (everything)
    #[arg(long, value_parser = role_parser())]
    role: AccessRole,
    /// How long it is good: 30m, 24h, 90d; default: until it is revoked
    #[arg(long, value_name = "TIME", value_parser = life)]
    ttl: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Args, Clone, Debug)]
struct ListArgs {
    #[command(flatten)]
    server: Server,
}

/// Revoke a token: no box takes it any more
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd access revoke press3")]
struct RevokeArgs {
    /// Its name, as `tallyd access list` shows it
    #[arg(value_parser = member_name)]
    name: String,
    #[command(flatten)]
    server: Server,
}

/// Make a token and print a link to the page with it, as text and as a QR code
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd access link
  tallyd access link --name tablet-hall3 --ttl 366d

The token stands behind the #, which browsers send to nobody. The page keeps it until its tab is closed.")]
struct LinkArgs {
    /// What its holder may do: read, count, admin; the page only reads
    #[arg(long, default_value = "read", value_parser = role_parser())]
    role: AccessRole,
    /// Name of the token; default: link- and four digits
    #[arg(long, value_parser = member_name)]
    name: Option<String>,
    /// How long it is good
    #[arg(long, value_name = "TIME", default_value = LINK_TTL, value_parser = life)]
    ttl: String,
    /// Where browsers find the page, if it is not where this box listens: behind a proxy
    #[arg(long, value_name = "URL")]
    page: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Created {
    token: String,
    name: String,
    role: String,
    ends_in_ms: Option<u64>,
}

#[derive(Deserialize)]
struct List {
    access: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    role: String,
    ends_in_ms: Option<u64>,
    made_by: String,
}

fn role_parser() -> impl TypedValueParser<Value = AccessRole> {
    PossibleValuesParser::new(AccessRole::ALL.map(AccessRole::as_str)).map(|text| {
        AccessRole::ALL.into_iter().find(|role| role.as_str() == text).unwrap_or(AccessRole::Read)
    })
}

pub(super) async fn run(args: AccessArgs) -> Result<(), ClientError> {
    match args.command {
        AccessCommand::Create(args) => create(args).await,
        AccessCommand::List(ListArgs { server }) => list(&server).await,
        AccessCommand::Revoke(RevokeArgs { name, server }) => revoke(&server, &name).await,
        AccessCommand::Link(args) => link(args).await,
    }
}

/// Asks for a token.
async fn made(
    server: &Server,
    name: &str,
    role: AccessRole,
    ttl: Option<&str>,
) -> Result<Bytes, ClientError> {
    let body = json!({ "name": name, "role": role, "ttl": ttl });
    let call = Call {
        method: Method::POST,
        path: "/v1/access".to_owned(),
        body: Bytes::from(body.to_string()),
        key: None,
        // Each would be another token, of which nobody knows.
        policy: Policy::Once,
    };
    Client::new(server)?.call(&call).await
}

async fn create(args: CreateArgs) -> Result<(), ClientError> {
    let CreateArgs { name, role, ttl, server } = args;
    let body = made(&server, &name, role, ttl.as_deref()).await?;
    let created: Created = outcome(&body)?;
    if server.json {
        return print_done(&format!("{}\n", String::from_utf8_lossy(&body).trim_end()));
    }
    // The token alone goes to standard output, so that it can go into a file.
    let _ = writeln!(
        std::io::stderr(),
        "{}: a token with the role {}, good {}; it is shown only now (header 'Authorization: Bearer TOKEN'; tallyd: \
         --token-file FILE)",
        text::printable(&created.name),
        text::printable(&created.role),
        good_for(created.ends_in_ms)
    );
    print_done(&format!("{}\n", text::printable(&created.token)))
}

fn good_for(ends_in_ms: Option<u64>) -> String {
    ends_in_ms.map_or_else(|| "until it is revoked".to_owned(), |ms| format!("for {}", span(ms)))
}

async fn list(server: &Server) -> Result<(), ClientError> {
    let body = Client::new(server)?.call(&Call::get("/v1/access".to_owned())).await?;
    if server.json {
        return print_json(&body);
    }
    let list: List = parse_answer(server, &body)?;
    let columns =
        [("NAME", Side::Left), ("ROLE", Side::Left), ("ENDS IN", Side::Left), ("MADE BY", Side::Left)];
    let mut table = Table::new(&columns);
    for token in list.access {
        table.row([
            token.name,
            token.role,
            token.ends_in_ms.map_or_else(|| "when revoked".to_owned(), span),
            token.made_by,
        ]);
    }
    if table.is_empty() {
        return print("no access token is good now\n");
    }
    print(&table.text())
}

async fn revoke(server: &Server, name: &str) -> Result<(), ClientError> {
    let call = Call {
        method: Method::DELETE,
        path: format!("/v1/access/{}", text::in_path(name)),
        body: Bytes::new(),
        key: None,
        policy: Policy::Once,
    };
    let body = Client::new(server)?.call(&call).await?;
    if server.json {
        return print_done(&format!("{}\n", String::from_utf8_lossy(&body).trim_end()));
    }
    print_done(&format!("the access token {name} is not good any more\n"))
}

async fn link(args: LinkArgs) -> Result<(), ClientError> {
    let LinkArgs { role, name, ttl, page, server } = args;
    let page = match page {
        Some(page) => page,
        None => page_of(&server).await?,
    };
    let name = match name {
        Some(name) => name,
        None => {
            let random: [u8; 2] = random::bytes().map_err(|_| {
                ClientError::NotTried("the system's random generator does not answer".to_owned())
            })?;
            format!("link-{:04x}", u16::from_be_bytes(random))
        }
    };
    let body = made(&server, &name, role, Some(&ttl)).await?;
    let created: Created = outcome(&body)?;
    let link = format!("{}/#{}", page.trim_end_matches('/'), created.token);
    if server.json {
        let said = json!({
            "link": link, "name": created.name, "role": created.role, "ends_in_ms": created.ends_in_ms,
        });
        return print_done(&format!("{said}\n"));
    }
    print_done(&format!(
        "{}\n{}\nThe token in it is {}, role {}, good {}; whoever has the link has it.\n",
        in_blocks(&link),
        text::printable(&link),
        text::printable(&created.name),
        text::printable(&created.role),
        good_for(created.ends_in_ms)
    ))
}

/// Where the page of the box is that is asked.
async fn page_of(server: &Server) -> Result<String, ClientError> {
    let body = Client::new(server)?.call(&Call::get("/v1/status".to_owned())).await?;
    let status: Value = parse_answer(server, &body)?;
    status["api"]["page"].as_str().map(str::to_owned).ok_or_else(|| {
        ClientError::NotTried(
            "the API of this box is reached from its own machine only: set api.listen to an address that others reach, \
             such as \"0.0.0.0:7480\", or name what passes requests on to it with --page URL"
                .to_owned(),
        )
    })
}

/// A QR code, two rows of it in a line; empty if the text is too long for one.
fn in_blocks(text: &str) -> String {
    let code = QrCode::with_error_correction_level(text, qrcode::EcLevel::L);
    // Light modules are drawn, which is right on a dark terminal; cameras read the other way round, too.
    let drawn = |code: QrCode| {
        let mut drawn = code.render::<Dense1x2>();
        drawn.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build()
    };
    code.map(drawn).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_fits_a_terminal_as_a_qr_code() {
        let link = "https://192.168.100.100:7480/#tallya1-00041-06105-0r3gg-28a1c-60t3g-fzsrn";
        let code = in_blocks(link);
        let (width, height) =
            (code.lines().map(|line| line.chars().count()).max().unwrap(), code.lines().count());
        assert!(width <= 60 && height <= 30, "{width} x {height}");
        assert_eq!(in_blocks(&"x".repeat(5000)), "");
    }
}
