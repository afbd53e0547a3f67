//! Changes of a config, in the words of a Dockerfile.

use serde_json::{Map, Value, json};

use crate::errno::{Errno, Error, Result};

/// Applies one change to the `config` object of a config.
///
/// # Errors
/// `EINVAL` for an instruction that is not known or makes no sense, naming it.
pub(super) fn apply(run: &mut Map<String, Value>, change: &str) -> Result<()> {
    let bad = |why: &str| {
        let shown = change.chars().take(80).collect::<String>();
        Error::new(Errno::EINVAL, format!("change '{}': {why}", shown.escape_debug()))
    };
    let text = change.trim();
    let (word, rest) = text.split_once([' ', '\t', '=']).unwrap_or((text, ""));
    let rest = rest.trim();
    if rest.contains('\0') {
        return Err(bad("a NUL"));
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => drop(run.insert("Cmd".to_owned(), command(rest).map_err(bad)?)),
        "ENTRYPOINT" => drop(run.insert("Entrypoint".to_owned(), command(rest).map_err(bad)?)),
        "USER" => drop(run.insert("User".to_owned(), json!(rest))),
        "WORKDIR" if rest.starts_with('/') || rest.is_empty() => {
            run.insert("WorkingDir".to_owned(), json!(rest));
        }
        "WORKDIR" => return Err(bad("the directory's path must be absolute")),
        "STOPSIGNAL" => drop(run.insert("StopSignal".to_owned(), json!(rest))),
        "ENV" => set_env(run, rest).map_err(bad)?,
        "LABEL" => {
            let (key, value) = pair(rest).map_err(bad)?;
            put(run, "Labels", key, json!(value));
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
                put(run, "ExposedPorts", port, json!({}));
            }
        }
        "VOLUME" => {
            let volumes = match command_list(rest) {
                Some(volumes) => volumes,
                None => rest.split_whitespace().map(str::to_owned).collect(),
            };
            for volume in volumes {
                put(run, "Volumes", volume, json!({}));
            }
        }
        _ => {
            return Err(bad(
                "only CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR \
                 can be changed",
            ));
        }
    }
    Ok(())
}

/// A list in JSON, or what a shell is to make of it.
fn command(text: &str) -> std::result::Result<Value, &'static str> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    Ok(match command_list(text) {
        Some(list) => json!(list),
        None if text.starts_with('[') => return Err("not a list of strings in JSON"),
        None => json!(["/bin/sh", "-c", text]),
    })
}

fn command_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// `NAME=value`, or `NAME value`; quotes around the value are taken off.
fn pair(text: &str) -> std::result::Result<(String, String), &'static str> {
    let (key, value) = text.split_once(['=', ' ']).ok_or("NAME=value is expected")?;
    let value = value.trim();
    let bare = |quote| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    let value = bare('"').or_else(|| bare('\'')).unwrap_or(value);
    if key.is_empty() { Err("NAME=value is expected") } else { Ok((key.into(), value.into())) }
}

fn set_env(run: &mut Map<String, Value>, text: &str) -> std::result::Result<(), &'static str> {
    let (key, value) = pair(text)?;
    let env = run.entry("Env").or_insert(Value::Null);
    if !env.is_array() {
        *env = json!([]);
    }
    let Some(env) = env.as_array_mut() else { return Ok(()) };
    let new = json!(format!("{key}={value}"));
    let same = |old: &&mut Value| {
        old.as_str().and_then(|old| old.split_once('=')).is_some_and(|(name, _)| name == key)
    };
    match env.iter_mut().find(same) {
        Some(old) => *old = new,
        None => env.push(new),
    }
    Ok(())
}

/// Puts a value into the object at `key`, which is made if there is none.
fn put(run: &mut Map<String, Value>, key: &str, name: String, value: Value) {
    match run.entry(key).or_insert(Value::Null) {
        Value::Object(object) => drop(object.insert(name, value)),
        other => *other = Value::Object(Map::from_iter([(name, value)])),
    }
}

#[cfg(test)]
mod tests;
