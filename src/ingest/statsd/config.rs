//! `[ingest.statsd]`: where StatsD is listened to.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Deserializer};

use crate::units::socket_address;

/// Where StatsD clients send, if nobody told them another port.
const PORT: u16 = 8125;
/// More addresses are a mistake.
const ADDRESSES_MAX: usize = 16;

/// `[ingest.statsd]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatsdSection {
    /// UDP.
    pub listen: StatsdListen,
}

/// Where StatsD is listened to: a list of addresses, or one; `"off"`, `""` or an empty list turns it off.
#[derive(Clone, Debug)]
pub struct StatsdListen {
    /// The addresses.
    pub addresses: Vec<SocketAddr>,
    /// Nobody said so: then the second is left out where there is no IPv6.
    pub is_default: bool,
}

impl Default for StatsdListen {
    fn default() -> StatsdListen {
        let addresses = vec![
            SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, PORT)),
        ];
        StatsdListen { addresses, is_default: true }
    }
}

/// The same addresses, whoever said so.
impl PartialEq for StatsdListen {
    fn eq(&self, other: &StatsdListen) -> bool {
        self.addresses == other.addresses
    }
}

impl<'de> Deserialize<'de> for StatsdListen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected an address such as \"127.0.0.1:8125\", or a list of such")]
        enum Said {
            One(String),
            Several(Vec<String>),
        }
        let texts = match Said::deserialize(deserializer)? {
            Said::One(text) => vec![text],
            Said::Several(texts) => texts,
        };
        let texts = texts.iter().filter(|text| !matches!(text.as_str(), "" | "off"));
        let mut addresses = texts
            .map(|text| socket_address(text, "127.0.0.1:8125"))
            .collect::<Result<Vec<_>, _>>()
            .map_err(serde::de::Error::custom)?;
        addresses.dedup();
        if addresses.len() > ADDRESSES_MAX {
            let what = format!("{} addresses, at most {ADDRESSES_MAX} can be", addresses.len());
            return Err(serde::de::Error::custom(what));
        }
        Ok(StatsdListen { addresses, is_default: false })
    }
}
