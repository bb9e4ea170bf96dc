//! The sources of options and their order: an option of the command line beats a variable, which
//! beats the file.

use super::nearest::nearest;
use super::{Backend, Limits};
use crate::error::{Code, Error, Result};
use serde::{Deserialize, Deserializer};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The options of one source, or of several merged; `None` where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Options {
    /// See [`NodeConfig::name`](super::NodeConfig).
    pub name: Option<String>,
    /// See [`NodeConfig::listen`](super::NodeConfig).
    pub listen: Option<String>,
    /// See [`NodeConfig::advertise`](super::NodeConfig).
    pub advertise: Option<String>,
    /// See [`NodeConfig::http`](super::NodeConfig).
    pub http: Option<String>,
    /// See [`NodeConfig::seeds`](super::NodeConfig); a list, or one text with commas.
    #[serde(deserialize_with = "list_or_text")]
    pub seeds: Option<Vec<String>>,
    /// See [`NodeConfig::data`](super::NodeConfig).
    pub data: Option<PathBuf>,
    /// See [`NodeConfig::partitions`](super::NodeConfig).
    pub partitions: Option<u32>,
    /// See [`NodeConfig::replicas`](super::NodeConfig).
    pub replicas: Option<u32>,
    /// See [`NodeConfig::backend`](super::NodeConfig).
    pub backend: Option<Backend>,
    /// See [`NodeConfig::memory_limit`](super::NodeConfig); a size such as `256MiB`.
    pub memory_limit: Option<String>,
    /// See [`NodeConfig::zone`](super::NodeConfig).
    pub zone: Option<String>,
    /// See [`NodeConfig::weight`](super::NodeConfig).
    pub weight: Option<u32>,
    /// See [`NodeConfig::insecure`](super::NodeConfig).
    pub insecure: Option<bool>,
    /// See [`NodeConfig::limits`](super::NodeConfig); only from a file.
    pub limits: Option<Limits>,
}

const NAMES: [&str; 14] = [
    "name",
    "listen",
    "advertise",
    "http",
    "seeds",
    "data",
    "partitions",
    "replicas",
    "backend",
    "memory_limit",
    "zone",
    "weight",
    "insecure",
    "limits",
];

#[derive(Deserialize)]
#[serde(untagged)]
enum ListOrText {
    List(Vec<String>),
    Text(String),
}

fn list_or_text<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Vec<String>>, D::Error> {
    Ok(Some(match ListOrText::deserialize(source)? {
        ListOrText::List(list) => list,
        ListOrText::Text(text) => split_list(&text),
    }))
}

/// The parts of a text with commas; blanks round them and empty parts are dropped.
pub(super) fn split_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

impl Options {
    /// Reads a TOML text; `place` names it in errors.
    ///
    /// # Errors
    /// `InvalidConfig` for what is no TOML, for an unknown key (the nearest known one is named)
    /// and for a value of the wrong type.
    pub fn from_toml(text: &str, place: &str) -> Result<Self> {
        let bad = |error: toml::de::Error| {
            let what = error.message().lines().next().unwrap_or("not readable").to_owned();
            let line = error.span().map_or(String::new(), |span| {
                format!(" line {}", text[..span.start.min(text.len())].lines().count().max(1))
            });
            Error::new(Code::InvalidConfig, what).at(format!("{place}{line}"))
        };
        let table: toml::Table = toml::from_str(text).map_err(bad)?;
        check_keys(table.keys(), "", &NAMES, place)?;
        if let Some(toml::Value::Table(limits)) = table.get("limits") {
            let names = Limits::names();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            check_keys(limits.keys(), "limits.", &names, place)?;
        }
        toml::from_str(text).map_err(bad)
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    /// `InvalidConfig` when it cannot be read, and as [`Options::from_toml`].
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::new(Code::InvalidConfig, format!("the file cannot be read: {error}")).at(path.display().to_string())
        })?;
        Self::from_toml(&text, &path.display().to_string())
    }

    /// Reads `KEYSTEAD_NAME`, `KEYSTEAD_LISTEN` and so on through a look-up of variables.
    ///
    /// # Errors
    /// `InvalidConfig` for a value of the wrong type.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let text = |name: &str| variable(&format!("KEYSTEAD_{}", name.to_uppercase())).filter(|text| !text.is_empty());
        Ok(Options {
            name: text("name"),
            listen: text("listen"),
            advertise: text("advertise"),
            http: text("http"),
            seeds: text("seeds").map(|text| split_list(&text)),
            data: text("data").map(PathBuf::from),
            partitions: parse("partitions", text("partitions"))?,
            replicas: parse("replicas", text("replicas"))?,
            backend: parse("backend", text("backend"))?,
            memory_limit: text("memory_limit"),
            zone: text("zone"),
            weight: parse("weight", text("weight"))?,
            insecure: text("insecure").map(|text| truth(&text)).transpose()?,
            limits: None,
        })
    }

    /// These options, and where they say nothing, those.
    #[must_use]
    pub fn or(self, those: Options) -> Self {
        Options {
            name: self.name.or(those.name),
            listen: self.listen.or(those.listen),
            advertise: self.advertise.or(those.advertise),
            http: self.http.or(those.http),
            seeds: self.seeds.or(those.seeds),
            data: self.data.or(those.data),
            partitions: self.partitions.or(those.partitions),
            replicas: self.replicas.or(those.replicas),
            backend: self.backend.or(those.backend),
            memory_limit: self.memory_limit.or(those.memory_limit),
            zone: self.zone.or(those.zone),
            weight: self.weight.or(those.weight),
            insecure: self.insecure.or(those.insecure),
            limits: self.limits.or(those.limits),
        }
    }

    /// Merges the command line's options with the variables and the file. The file is the one that
    /// the command line names, else `KEYSTEAD_CONFIG`, else none.
    ///
    /// # Errors
    /// What the sources say.
    pub fn gather(self, config_file: Option<PathBuf>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let named = config_file.or_else(|| variable("KEYSTEAD_CONFIG").map(PathBuf::from));
        let file = named.map_or(Ok(Options::default()), |path| Options::from_file(&path))?;
        Ok(self.or(Options::from_variables(variable)?).or(file))
    }
}

fn check_keys<'a>(keys: impl Iterator<Item = &'a String>, prefix: &str, known: &[&str], place: &str) -> Result<()> {
    for key in keys {
        if !known.contains(&key.as_str()) {
            let hint = nearest(key, known).unwrap_or_default();
            return Err(Error::new(Code::InvalidConfig, format!("there is no option \"{prefix}{key}\""))
                .at(place)
                .remedy(format!("did you mean \"{prefix}{hint}\"?")));
        }
    }
    Ok(())
}

fn parse<T: FromStr>(name: &str, text: Option<String>) -> Result<Option<T>> {
    let Some(text) = text else { return Ok(None) };
    text.parse().map(Some).map_err(|_| wrong(name, &text))
}

fn truth(text: &str) -> Result<bool> {
    match text {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => Err(wrong("insecure", text)),
    }
}

fn wrong(name: &str, text: &str) -> Error {
    Error::new(Code::InvalidConfig, format!("\"{text}\" is not a value of this option"))
        .at(format!("variable KEYSTEAD_{}", name.to_uppercase()))
}
