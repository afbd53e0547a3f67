//! What an image's config says about the programs to run in it, and about its layers.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::digest::DiffId;
use super::manifest::{MAX_LAYERS, from_json, or_default};
use super::platform::Platform;
use crate::errno::{Context as _, Errno, Error, Result};

/// A config has no more bytes than this.
pub const MAX_CONFIG: u64 = 8 << 20;

/// The config of an image as values. Its bytes, whose digest is the image's id, are kept beside
/// it, since it says more than is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the image's programs run on.
    pub platform: Platform,
    /// When it was made, as RFC 3339 has it, if it says so.
    pub created: Option<String>,
    /// Environment: `NAME=value`.
    pub env: Vec<String>,
    /// Directory that commands start in; empty means `/`.
    pub working_dir: String,
    /// `USER[:GROUP]`, names or numbers; empty means root.
    pub user: String,
    /// What is always run, before the arguments.
    pub entrypoint: Vec<String>,
    /// Arguments, or the whole command if there is no entrypoint, when none are given.
    pub cmd: Vec<String>,
    /// Ports that the programs listen on: `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Directories that are meant to outlive the container.
    pub volumes: Vec<String>,
    /// What is said about the image.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the command to end, by name or number.
    pub stop_signal: Option<String>,
    /// The layers' identities, lowest first.
    pub diff_ids: Vec<DiffId>,
    /// How the layers came about, lowest first; more entries than layers, or none at all.
    pub history: Vec<History>,
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct History {
    /// When, as RFC 3339 has it.
    pub created: Option<String>,
    /// By which command.
    pub created_by: Option<String>,
    /// By whom.
    pub author: Option<String>,
    /// A remark.
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default, deserialize_with = "or_default")]
    pub empty_layer: bool,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default, deserialize_with = "or_default")]
    variant: String,
    #[serde(default)]
    created: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    config: Run,
    rootfs: RootFs,
    #[serde(default, deserialize_with = "or_default")]
    history: Vec<History>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Run {
    #[serde(deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    working_dir: String,
    #[serde(deserialize_with = "or_default")]
    user: String,
    #[serde(deserialize_with = "or_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "or_default")]
    volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    stop_signal: Option<String>,
}

impl Config {
    /// Reads a config.
    ///
    /// # Errors
    /// `EINVAL` for what is no image config, has more than [`MAX_LAYERS`] layers, identities that
    /// are no SHA-256 digests, or a NUL in what a program would be given.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(wrong(format!("config of more than {MAX_CONFIG} bytes")));
        }
        let raw: Raw = from_json(bytes).context(|| "the image's config")?;
        if raw.rootfs.kind != "layers" {
            let kind = raw.rootfs.kind.escape_debug();
            return Err(wrong(format!("the image's config: '{kind}' instead of layers")));
        }
        if raw.rootfs.diff_ids.len() > MAX_LAYERS {
            let n = raw.rootfs.diff_ids.len();
            return Err(wrong(format!("the image's config: {n} layers, more than {MAX_LAYERS}")));
        }
        let ids = raw.rootfs.diff_ids.iter().map(|text| text.parse());
        let diff_ids = ids.collect::<Result<_>>().context(|| "the image's config: rootfs")?;
        let run = raw.config;
        run.check_nul()?;
        Ok(Self {
            platform: Platform::new(&raw.os, &raw.architecture, &raw.variant),
            created: raw.created,
            env: run.env,
            working_dir: run.working_dir,
            user: run.user,
            entrypoint: run.entrypoint,
            cmd: run.cmd,
            exposed_ports: run.exposed_ports.into_keys().collect(),
            volumes: run.volumes.into_keys().collect(),
            labels: run.labels,
            stop_signal: run.stop_signal,
            diff_ids,
            history: raw.history,
        })
    }
}

impl Run {
    /// No program can be given a NUL.
    fn check_nul(&self) -> Result<()> {
        let single = [("WorkingDir", &self.working_dir), ("User", &self.user)];
        let several = [("Env", &self.env), ("Entrypoint", &self.entrypoint), ("Cmd", &self.cmd)];
        let several = several.iter().flat_map(|(name, list)| list.iter().map(move |s| (*name, s)));
        let found = single.into_iter().chain(several).find(|(_, text)| text.contains('\0'));
        match found {
            Some((name, _)) => Err(wrong(format!("the image's config: a NUL in {name}"))),
            None => Ok(()),
        }
    }
}

fn wrong(why: impl Into<String>) -> Error {
    Error::new(Errno::EINVAL, why)
}

#[cfg(test)]
mod tests;
