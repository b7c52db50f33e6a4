//! `tallyd settings`: the replicated settings, to see and to change.

use std::io::Write;

use clap::Args;
use hyper::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{AskError, Client, ClientArgs};
use super::connection::Question;
use super::table::{Lean, list, plain, table};
use super::tries::{self, Repeat};
use super::{Failure, parsed, print, print_done, url};

const EXAMPLE: &str = "\
Examples:
  tallyd settings
  tallyd settings keys.max
  tallyd settings window.spans 'host/*=5m'";

/// Show the site's settings, or change one
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLE)]
pub struct SettingsArgs {
    /// Only this one
    pub key: Option<String>,
    /// What it is to be from now on, at all boxes
    #[arg(allow_negative_numbers = true)]
    pub value: Option<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Deserialize)]
struct Settings<'a> {
    #[serde(borrow)]
    settings: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Setting {
    key: String,
    value: String,
    default: String,
    help: String,
}

#[derive(Deserialize)]
struct Set {
    key: String,
    value: String,
}

/// Shows or changes.
pub async fn run(args: &SettingsArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    if let (Some(key), Some(value)) = (&args.key, &args.value) {
        let body = set(&client, key, value).await?;
        if args.client.json {
            return print_done(out, &body);
        }
        let set: Set = parsed(&body).map_err(|failure| Failure::new(tries::UNKNOWN, failure.text))?;
        return print_done(out, &format!("{}  {}", plain(&set.key), plain(&set.value)));
    }
    let body = client.read("/v1/settings".to_owned()).await?;
    let Some(key) = &args.key else {
        return print(out, &if args.client.json { body } else { all(&parsed(&body)?)? });
    };
    let settings: Settings<'_> = parsed(&body)?;
    let (setting, json) = find(&settings, key)?;
    if args.client.json {
        return print(out, json);
    }
    let rows = [
        ("key", plain(&setting.key)),
        ("value", plain(&setting.value)),
        ("default", plain(&setting.default)),
        ("help", plain(&setting.help)),
    ];
    print(out, &list(&rows))
}

/// Without a retry after an unknown outcome: it could undo what somebody else set since.
async fn set(client: &Client, key: &str, value: &str) -> Result<String, Failure> {
    let question = Question {
        method: Method::PUT,
        // A slash would lead elsewhere.
        path: format!("/v1/settings/{}", url::in_query(key)),
        body: Some(serde_json::json!({ "value": value }).to_string()),
        key: None,
    };
    client.ask(&question, Repeat::Harms).await.map_err(|AskError { status, text, .. }| {
        let end = match status {
            tries::UNKNOWN => format!("; whether it was set is unknown: tallyd settings {key} shows it"),
            _ => "; nothing was changed".to_owned(),
        };
        Failure::new(status, text + &end)
    })
}

fn all(settings: &Settings<'_>) -> Result<String, Failure> {
    let rows: Vec<Vec<String>> = settings
        .settings
        .iter()
        .map(|json| {
            let Setting { key, value, default, help } = parsed(json.get())?;
            let changed = if value == default { String::new() } else { format!("({})", plain(&default)) };
            Ok(vec![plain(&key), plain(&value), changed, plain(&help)])
        })
        .collect::<Result<_, Failure>>()?;
    let columns = [("KEY", Lean::Left), ("VALUE", Lean::Left), ("(DEFAULT)", Lean::Left), ("", Lean::Left)];
    Ok(table(&columns, &rows))
}

fn find<'a>(settings: &Settings<'a>, key: &str) -> Result<(Setting, &'a str), Failure> {
    let mut known = Vec::new();
    for json in &settings.settings {
        let setting: Setting = parsed(json.get())?;
        if setting.key == key {
            return Ok((setting, json.get()));
        }
        known.push(setting.key);
    }
    let nearest = known.iter().min_by_key(|known| strsim::damerau_levenshtein(key, known));
    let hint = nearest.map(|known| format!("; the nearest is {}", plain(known))).unwrap_or_default();
    Err(Failure::new(tries::FAILED, format!("there is no setting {key:?}{hint}; tallyd settings lists them")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"settings":[{"key":"keys.max","value":"5","default":"5","help":"how many"},
                          {"key":"window.base","value":"5m","default":"1m","help":"span"}]}"#;

    #[test]
    fn a_list_shows_the_default_where_it_was_changed() {
        let text = all(&parsed(BODY).unwrap()).unwrap();
        assert_eq!(
            text,
            "KEY          VALUE  (DEFAULT)\nkeys.max     5                 how many\n\
             window.base  5m     (1m)       span\n"
        );
    }

    #[test]
    fn an_unknown_key_is_told_with_the_nearest_known_one() {
        let settings = parsed(BODY).unwrap();
        assert_eq!(find(&settings, "window.base").unwrap().0.value, "5m");
        let failure = find(&settings, "window.bse").err().unwrap();
        assert_eq!(failure.status, tries::FAILED);
        assert!(failure.text.contains("the nearest is window.base"), "{}", failure.text);
    }
}
