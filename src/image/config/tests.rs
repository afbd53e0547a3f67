use super::*;
use crate::image::digest::Digest;

fn refused(json: &str) -> String {
    let error = Config::parse(json.as_bytes()).unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL);
    error.to_string()
}

#[test]
fn a_config_is_read() {
    let id = Digest::of(b"layer");
    let json = format!(
        r#"{{"created":"2024-01-01T00:00:00Z","architecture":"arm64","variant":"v8","os":"linux",
            "config":{{"User":"1:2","Env":["A=b","PATH=/bin"],"Entrypoint":["/e"],"Cmd":["c","d"],
            "WorkingDir":"/w","ExposedPorts":{{"80/tcp":{{}}}},"Volumes":{{"/v":{{}}}},
            "Labels":{{"l":"m"}},"StopSignal":"SIGQUIT","Healthcheck":{{"Test":["x"]}}}},
            "rootfs":{{"type":"layers","diff_ids":["{id}"]}},
            "history":[{{"created_by":"a","empty_layer":true}},{{"comment":"b"}}],"extra":1}}"#
    );
    let config = Config::parse(json.as_bytes()).unwrap();
    assert_eq!(config.platform, "linux/arm64".parse().unwrap());
    assert_eq!(config.created.as_deref(), Some("2024-01-01T00:00:00Z"));
    assert_eq!((config.env, config.user), (vec!["A=b".into(), "PATH=/bin".into()], "1:2".into()));
    assert_eq!((config.entrypoint, config.working_dir), (vec!["/e".to_owned()], "/w".to_owned()));
    assert_eq!(config.cmd, ["c", "d"]);
    assert_eq!((config.exposed_ports, config.volumes), (vec!["80/tcp".into()], vec!["/v".into()]));
    assert_eq!(config.labels["l"], "m");
    assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(config.diff_ids, [id]);
    assert!(config.history[0].empty_layer && !config.history[1].empty_layer);
}

#[test]
fn gos_nulls_are_nothing() {
    let json = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":null,
        "Entrypoint":null,"ExposedPorts":null,"Volumes":null,"Labels":null,"User":null,
        "WorkingDir":null,"StopSignal":null},"rootfs":{"type":"layers","diff_ids":null},
        "history":null,"created":null,"variant":null}"#;
    let config = Config::parse(json.as_bytes()).unwrap();
    let short = r#"{"architecture":"amd64","os":"linux","config":null,"rootfs":{"type":"layers"}}"#;
    assert_eq!(config, Config::parse(short.as_bytes()).unwrap());
    assert!(config.env.is_empty() && config.diff_ids.is_empty());
}

#[test]
fn what_is_no_config_is_refused() {
    let rootfs = |inner: &str| format!(r#"{{"rootfs":{inner}}}"#);
    let id = Digest::of(b"");
    let many = vec![format!("\"{id}\""); MAX_LAYERS + 1].join(",");
    let cases = [
        ("{}".to_owned(), "rootfs"),
        ("[]".to_owned(), "not the JSON"),
        (rootfs(r#"{"type":"disk"}"#), "'disk' instead of layers"),
        (rootfs(r#"{"type":"layers","diff_ids":["sha256:1"]}"#), "no SHA-256"),
        (rootfs(r#"{"type":"layers","diff_ids":["sha512:1"]}"#), "not supported"),
        (rootfs(&format!(r#"{{"type":"layers","diff_ids":[{many}]}}"#)), "1001 layers"),
    ];
    for (json, why) in cases {
        let text = refused(&json);
        assert!(text.starts_with("the image's config: ") && text.contains(why), "{text}");
    }
    let run = |inner: &str| format!(r#"{{"config":{inner},"rootfs":{{"type":"layers"}}}}"#);
    for (inner, field) in [
        (r#"{"Env":["A=\u0000"]}"#, "Env"),
        (r#"{"Cmd":["ok","a\u0000b"]}"#, "Cmd"),
        (r#"{"Entrypoint":["\u0000"]}"#, "Entrypoint"),
        (r#"{"User":"\u0000"}"#, "User"),
        (r#"{"WorkingDir":"/\u0000"}"#, "WorkingDir"),
    ] {
        assert!(refused(&run(inner)).contains(&format!("a NUL in {field}")));
    }
    let big = vec![b' '; usize::try_from(MAX_CONFIG).unwrap() + 1];
    assert!(Config::parse(&big).unwrap_err().to_string().contains("more than"));
}
