use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::{Variable, bind, command, environment, variable};

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The image's entry point and arguments, the user's, and what comes of them.
type Case = (
    &'static [&'static str],
    &'static [&'static str],
    Option<&'static str>,
    &'static [&'static str],
    &'static [&'static str],
);

#[test]
fn commands_are_put_together_as_docker_does() {
    let table: &[Case] = &[
        (&[], &["bash"], None, &[], &["bash"]),
        (&[], &["bash"], None, &["ls", "-l"], &["ls", "-l"]),
        (&["/init"], &["start"], None, &[], &["/init", "start"]),
        (&["/init"], &["start"], None, &["stop", "now"], &["/init", "stop", "now"]),
        (&["/init", "-v"], &[], None, &[], &["/init", "-v"]),
        (&["/init"], &["start"], Some("sh"), &[], &["sh"]),
        (&["/init"], &["start"], Some("sh"), &["-c", "x"], &["sh", "-c", "x"]),
        (&["/init"], &["start"], Some(""), &["ls"], &["ls"]),
    ];
    for &(entry, cmd, given, arguments, expected) in table {
        let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
        let got = command(&words(entry), &words(cmd), given.map(OsStr::new), &arguments).unwrap();
        assert_eq!(got, expected, "{entry:?} {cmd:?} {given:?} {arguments:?}");
    }
    for (cmd, given) in [(&[][..], None), (&["start"][..], Some("")), (&[""][..], None)] {
        let error = command(&[], &words(cmd), given.map(OsStr::new), &[]).unwrap_err();
        assert_eq!(error.to_string(), "neither the image nor you named a command to run");
    }
}

#[test]
fn the_last_word_on_a_variable_counts() {
    let image = words(&["PATH=/image", "A=1", "nonsense", "=x", "A=2", "B=x=y", "GONE=1", "E="]);
    let wishes = [
        Variable::Set("B".into(), "mine".into()),
        Variable::Unset("GONE".into()),
        Variable::Unset("NEVER".into()),
        Variable::Set("HOSTNAME".into(), "other".into()),
    ];
    let got = environment("box", Some(OsStr::new("vt100")), &image, &wishes);
    assert_eq!(got, ["PATH=/image", "HOSTNAME=other", "TERM=vt100", "A=2", "B=mine", "E="]);
    let path = format!("PATH={}", super::DEFAULT_PATH);
    assert_eq!(environment("box", None, &[], &[]), [path.as_str(), "HOSTNAME=box"]);
}

#[test]
fn variables_are_given_or_taken_from_the_caller() {
    let caller = |name: &OsStr| (name == "TZ").then(|| OsString::from("UTC"));
    let read = |text: &str| variable(OsStr::new(text), caller);
    assert_eq!(read("A=b=c").unwrap(), Variable::Set("A".into(), "b=c".into()));
    assert_eq!(read("A=").unwrap(), Variable::Set("A".into(), "".into()));
    assert_eq!(read("TZ").unwrap(), Variable::Set("TZ".into(), "UTC".into()));
    assert_eq!(read("TZ=CET").unwrap(), Variable::Set("TZ".into(), "CET".into()));
    assert_eq!(read("NOT_THERE").unwrap(), Variable::Unset("NOT_THERE".into()));
    for text in ["", "=", "=x"] {
        let error = read(text).unwrap_err().to_string();
        assert_eq!(error, format!("{text}: a variable without a name: write NAME=VALUE or NAME"));
    }
}

#[test]
fn binds_are_read_or_refused_with_a_reason() {
    for (text, host, container, read_only) in [
        ("/src:/mnt", "/src", "/mnt", false),
        ("/src:/mnt:rw", "/src", "/mnt", false),
        ("./src:/mnt/a b:ro", "./src", "/mnt/a b", true),
        ("/dev:/dev/host", "/dev", "/dev/host", false),
        ("/x:/a/../b", "/x", "/a/../b", false),
    ] {
        let got = bind(OsStr::new(text)).unwrap();
        assert_eq!(
            (got.host.as_path(), got.container.as_path()),
            (host.as_ref(), Path::new(container))
        );
        assert_eq!(got.read_only, read_only, "{text}");
    }
    for (text, why) in [
        ("/src", "write HOST:PATH, or HOST:PATH:ro"),
        ("", "write HOST:PATH, or HOST:PATH:ro"),
        (":/mnt", "the path on the host is empty"),
        ("/src:", "the path in the container has to begin with a slash"),
        ("/src:mnt", "the path in the container has to begin with a slash"),
        ("/src:/mnt:", "after the second colon comes ro or rw"),
        ("/src:/mnt:z", "after the second colon comes ro or rw"),
        ("/src:/mnt:ro:x", "after the second colon comes ro or rw"),
        ("/a:b:/mnt", "a path with a colon cannot be given"),
        ("/a:/b:/mnt", "a path with a colon cannot be given"),
        ("/src:/", "that place in the container is taken: /, /proc and /sys"),
        ("/src:/.", "that place in the container is taken: /, /proc and /sys"),
        ("/src:/a/..", "that place in the container is taken: /, /proc and /sys"),
        ("/src:/proc", "that place in the container is taken: /, /proc and /sys"),
        ("/src:/../sys/fs", "that place in the container is taken: /, /proc and /sys"),
    ] {
        let error = bind(OsStr::new(text)).unwrap_err().to_string();
        assert_eq!(error, format!("{text}: {why}"));
    }
}
