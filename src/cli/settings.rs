//! `tallyd settings`: the replicated settings of the site.

use bytes::Bytes;
use clap::Args;
use hyper::Method;
use serde::Deserialize;

use super::client::{Call, Client, ClientError, Policy, Server};
use super::reads::{outcome, parse_answer, print_json};
use super::text::{Side, Table};
use super::{print, print_done, text};

/// Show or change the settings that all boxes of the site share
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd settings                               all, with their defaults
  tallyd settings outbox.summaries_max          one
  tallyd settings outbox.summaries_max 200000   change it, at all boxes at once")]
pub(super) struct SettingsArgs {
    /// Setting; default: all
    key: Option<String>,
    /// New value
    value: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct List {
    settings: Vec<Setting>,
}

#[derive(Deserialize)]
struct Setting {
    key: String,
    value: String,
    default: String,
    help: String,
}

#[derive(Deserialize)]
struct Changed {
    key: String,
    value: String,
}

pub(super) async fn run(args: SettingsArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.server)?;
    match (&args.key, &args.value) {
        (Some(key), Some(value)) => set(&client, &args.server, key, value).await,
        (key, _) => show(&client, &args.server, key.as_deref()).await,
    }
}

async fn set(client: &Client, server: &Server, key: &str, value: &str) -> Result<(), ClientError> {
    let call = Call {
        method: Method::PUT,
        path: format!("/v1/settings/{}", text::in_path(key)),
        body: Bytes::from(serde_json::json!({ "value": value }).to_string()),
        key: None,
        // Sent again, it could undo what somebody else has set meanwhile.
        policy: Policy::Once,
    };
    let body = client.call(&call).await?;
    let changed: Changed = outcome(&body)?;
    if server.json {
        return print_done(&format!("{}\n", String::from_utf8_lossy(&body).trim_end()));
    }
    print_done(&format!("{} = {}\n", changed.key, text::printable(&changed.value)))
}

async fn show(client: &Client, server: &Server, key: Option<&str>) -> Result<(), ClientError> {
    let body = client.call(&Call::get("/v1/settings".to_owned())).await?;
    let list: List = parse_answer(server, &body)?;
    let Some(key) = key else {
        if server.json {
            return print_json(&body);
        }
        return print(&table(&list).text());
    };
    let Some(setting) = list.settings.iter().find(|setting| setting.key == key) else {
        let keys: Vec<&str> = list.settings.iter().map(|setting| setting.key.as_str()).collect();
        return Err(ClientError::Usage(format!(
            "there is no setting {key:?}; the settings are {}",
            keys.join(", ")
        )));
    };
    if server.json {
        let form = serde_json::json!({
            "key": setting.key, "value": setting.value, "default": setting.default, "help": setting.help,
        });
        return print(&format!("{form}\n"));
    }
    print(&format!("{}\n", text::printable(&setting.value)))
}

fn table(list: &List) -> Table {
    let columns = [("SETTING", Side::Left), ("VALUE", Side::Left), ("DEFAULT", Side::Left), ("", Side::Left)];
    let mut table = Table::new(&columns);
    for setting in &list.settings {
        let default = if setting.value == setting.default { "" } else { &setting.default };
        table.row([setting.key.clone(), setting.value.clone(), default.to_owned(), setting.help.clone()]);
    }
    table
}
