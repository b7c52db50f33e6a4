//! Variables of the environment. One that is empty counts as not set, whoever reads it: service managers and
//! containers set empty ones for what nobody filled in.

use std::ffi::OsString;

use clap::Command;

/// The value of a variable; `None` where it is not set or empty.
pub fn value(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The same as text. What is not Unicode stays recognisable, so that whoever reads it as a value names it.
pub fn text(name: &str) -> Option<String> {
    value(name).map(|value| value.to_string_lossy().into_owned()).filter(|text| !text.trim().is_empty())
}

/// How a variable of the environment says a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// As it is.
    Text,
    /// In digits.
    Number,
    /// Divided by commas.
    Texts,
}

impl Says {
    /// The value that a variable's text says, for its key.
    ///
    /// # Errors
    /// What is wrong with the text, with an example.
    pub(crate) fn value(self, text: &str) -> Result<toml::Value, String> {
        let texts = || text.split(',').map(str::trim).filter(|one| !one.is_empty());
        match self {
            Says::Text => Ok(toml::Value::String(text.to_owned())),
            Says::Number => match text.trim().parse() {
                Ok(number) => Ok(toml::Value::Integer(number)),
                Err(_) => Err(format!("{text:?} is not a whole number such as 1024")),
            },
            Says::Texts => {
                Ok(toml::Value::Array(texts().map(|one| toml::Value::String(one.to_owned())).collect()))
            }
        }
    }
}

/// The names of all variables.
pub fn names() -> impl Iterator<Item = String> {
    std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned())
}

/// Lets no argument of a command, nor of those below it, have an empty variable for its value.
pub fn without_empty(command: Command) -> Command {
    let is_empty = |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
        true => arg.env(None::<&'static str>),
        false => arg,
    });
    command.mut_subcommands(without_empty)
}
