use serde_json::{Map, Value, json};

use super::apply;
use crate::errno::Errno;

fn changed(old: Value, changes: &[&str]) -> Value {
    let Value::Object(mut run) = old else { return Value::Null };
    for change in changes {
        apply(&mut run, change).unwrap();
    }
    Value::Object(run)
}

#[test]
fn instructions_do_what_they_do_in_a_dockerfile() {
    let old = json!({"Env": ["A=1", "AB=2"], "Labels": null, "Cmd": ["sh"]});
    let new = changed(
        old,
        &[
            "CMD [\"/bin/x\", \"y\"]",
            "entrypoint run it",
            "ENV A=3",
            "ENV C \"with space\"",
            "LABEL k=v=w",
            "EXPOSE 80 53/udp",
            "VOLUME /a /b",
            "VOLUME [\"/c d\"]",
            "USER 1000:1000",
            "WORKDIR /w",
            "STOPSIGNAL SIGINT",
        ],
    );
    let expected = json!({
        "Cmd": ["/bin/x", "y"],
        "Entrypoint": ["/bin/sh", "-c", "run it"],
        "Env": ["A=3", "AB=2", "C=with space"],
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Labels": {"k": "v=w"},
        "StopSignal": "SIGINT",
        "User": "1000:1000",
        "Volumes": {"/a": {}, "/b": {}, "/c d": {}},
        "WorkingDir": "/w",
    });
    assert_eq!(new, expected);
    assert_eq!(changed(new, &["CMD", "ENTRYPOINT []"])["Cmd"], Value::Null);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    for bad in ["RUN x", "", "WORKDIR x", "CMD [1]", "ENV", "ENV =x", "CMD a\0b"] {
        let error = apply(&mut Map::new(), bad).unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL);
        assert!(error.to_string().contains(&bad.escape_debug().to_string()), "{error}");
    }
}
