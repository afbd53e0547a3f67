//! The grammar of `-o`, as a table.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::*;
use crate::cli::args::MOUNT_HELP;
use crate::layer::override_stat::Form;
use crate::union::ids::Ids;

fn one(text: &str) -> Result<MountOptions, OptionError> {
    parse([text.as_bytes()])
}

fn lowers(text: &str) -> Vec<String> {
    let options = one(text).unwrap();
    options.lowers.iter().map(|path| path.to_str().unwrap().to_owned()).collect()
}

#[test]
fn layers_and_escapes() {
    for (text, expected) in [
        ("lowerdir=a", &["a"][..]),
        ("lowerdir=a:b:c", &["a", "b", "c"]),
        (r"lowerdir=a\:b:c", &["a:b", "c"]),
        (r"lowerdir=a\,b:c\\,ro", &["a,b", r"c\"]),
        (r"lowerdir=a\\:b", &[r"a\", "b"]),
        (r"lowerdir=a\", &[r"a\"]),
        ("lowerdir=a\nb:c d", &["a\nb", "c d"]),
        ("lowerdir=a=b", &["a=b"]),
        ("lowerdir+=a:b,lowerdir+=c", &["a:b", "c"]),
        ("lowerdir=a,lowerdir+=b", &["a", "b"]),
        (",,lowerdir=a,,", &["a"]),
        ("ro, lowerdir=a", &["a"]),
    ] {
        assert_eq!(lowers(text), expected, "{text}");
    }
}

#[test]
fn any_bytes_in_a_path() {
    let options = parse([&b"lowerdir=\xff\xfe:\x01"[..]]).unwrap();
    assert_eq!(options.lowers[0].as_os_str().as_bytes(), b"\xff\xfe");
    assert_eq!(options.lowers[1].as_os_str().as_bytes(), b"\x01");
}

#[test]
fn an_upper_with_flags() {
    let arguments: [&[u8]; 2] = [b"lowerdir=l,upperdir=u", b"workdir=w,volatile,nosuid,noexec"];
    let options = parse(arguments).unwrap();
    assert_eq!(options.upper.as_deref(), Some(Path::new("u")));
    assert_eq!(options.work.as_deref(), Some(Path::new("w")));
    assert!(options.volatile && options.nosuid && options.noexec);
    assert!(!options.nodev && !options.read_only && !options.allow_other);
}

#[test]
fn the_last_of_opposites_wins() {
    assert!(!one("lowerdir=l,ro,rw").unwrap().read_only);
    assert!(one("lowerdir=l,rw,ro").unwrap().read_only);
    assert!(!one("lowerdir=l,nodev,dev").unwrap().nodev);
}

#[test]
fn what_other_tools_pass_is_listed_as_ignored() {
    let passed = "lowerdir=l,default_permissions,fsname=x,subtype=y,xino=auto,redirect_dir=on,\
                  index=on,metacopy=on,userxattr,threaded=1,_netdev,nofail,x-systemd.automount";
    let options = one(passed).unwrap();
    assert_eq!(options.ignored.len(), 9);
    assert!(!options.no_metacopy, "metacopy=on is no news, but counts");
    assert!(one("lowerdir=l,metacopy=off").unwrap().no_metacopy);
}

#[test]
fn the_manual_lists_what_is_accepted_without_effect() {
    let words: Vec<_> =
        MOUNT_HELP.split([' ', '\n']).map(|word| word.trim_end_matches([',', '.'])).collect();
    for option in IGNORED {
        let shown =
            option.strip_suffix("=*").map_or((*option).to_owned(), |name| format!("{name}="));
        assert!(words.contains(&shown.as_str()), "{option}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() {
    for (name, why) in REFUSED {
        let error = one(&format!("lowerdir=l,{name}=x")).unwrap_err();
        assert!(error.to_string().ends_with(why), "{error}");
    }
}

#[test]
fn what_is_durable_at_once_and_what_ends_by_itself() {
    let options = one("lowerdir=l,sync,dirsync,auto_unmount").unwrap().manner;
    assert!(options.sync && options.dirsync && options.auto_unmount);
    assert!(!one("lowerdir=l,sync,async").unwrap().manner.sync, "the last one counts");
}

#[test]
fn errors_name_the_option() {
    for (text, expected) in [
        ("lowerdir=l,colour=red", OptionError::Unknown(b"colour=red".to_vec())),
        ("lowerdir=l,ro=1", OptionError::Unknown(b"ro=1".to_vec())),
        (
            "lowerdir=l,redirect_dir=nofollow",
            OptionError::Refused(b"redirect_dir=nofollow".to_vec(), "it may be on, off or follow"),
        ),
        ("lowerdir=l,timeout=soon", OptionError::Value(b"timeout=soon".to_vec())),
        ("lowerdir=l,timeout=-1", OptionError::Value(b"timeout=-1".to_vec())),
        ("lowerdir=l,fsync=2", OptionError::Value(b"fsync=2".to_vec())),
        ("lowerdir=l,fsync", OptionError::Value(b"fsync".to_vec())),
        ("lowerdir=l,log=", OptionError::Value(b"log=".to_vec())),
        ("lowerdir=l,noacl=1", OptionError::Unknown(b"noacl=1".to_vec())),
        ("lowerdir=l,sync=1", OptionError::Unknown(b"sync=1".to_vec())),
        ("lowerdir", OptionError::Value(b"lowerdir".to_vec())),
        ("lowerdir=", OptionError::EmptyPath("lowerdir")),
        ("lowerdir=:a", OptionError::EmptyPath("lowerdir")),
        ("lowerdir=a:", OptionError::EmptyPath("lowerdir")),
        ("lowerdir=a::b", OptionError::DataOnly),
        ("lowerdir=a,lowerdir=b", OptionError::Twice("lowerdir")),
        ("lowerdir=a,upperdir=u,upperdir=v,workdir=w", OptionError::Twice("upperdir")),
        ("lowerdir=a,upperdir=u", OptionError::NoWork),
        ("lowerdir=a,workdir=w", OptionError::NoUpper("workdir")),
        ("lowerdir=a\0b", OptionError::Nul("lowerdir")),
        ("", OptionError::NoLayer),
        ("ro", OptionError::NoLayer),
    ] {
        let error = one(text).unwrap_err();
        assert_eq!(error, expected, "{text:?}");
        assert!(!error.to_string().is_empty() && !error.hint().is_empty());
    }
}

#[test]
fn owners_are_mapped_squashed_or_kept_in_an_attribute() {
    let owners = |text: &str| one(&format!("lowerdir=l,{text}")).map(|options| options.owners);
    let ids = owners("uidmapping=0:1000:1:1:110000:65536,gidmapping=:0:7:2").unwrap().ids(None);
    assert_eq!((ids.users.shown(0), ids.users.shown(33)), (1000, 110_032));
    assert_eq!((ids.groups.stored(8).unwrap(), ids.groups.shown(2)), (1, 65534));
    let both = owners("squash_to_uid=5,squash_to_root").unwrap();
    assert_eq!((both.ids(None).users.shown(9), both.ids(None).groups.shown(9)), (5, 0));
    assert_eq!(both.ids(None).users.stored(9).unwrap(), 9);
    assert_eq!(both.ids(Some((1000, 100))).groups.stored(9).unwrap(), 100);
    // Without squashing, a server that cannot give files away says so.
    assert_eq!(owners("ro").unwrap().ids(Some((1000, 100))), Ids::default());
    assert_eq!(owners("xattr_permissions=2").unwrap().kept, Some(Form::Containers));
    assert_eq!(owners("xattr_permissions=1").unwrap().kept, Some(Form::Privileged));
    assert_eq!(owners("xattr_permissions=0").unwrap().kept, None);
    for wrong in [
        "uidmapping",
        "uidmapping=",
        "uidmapping=0:1",
        "uidmapping=0:1:2:3",
        "uidmapping=0:1:0",
        "uidmapping=0:1:2:1:9:1",
        "gidmapping=a:b:c",
        "gidmapping=0:4294967295:1",
        "squash_to_uid",
        "squash_to_uid=-1",
        "squash_to_gid=4294967295",
        "xattr_permissions",
        "xattr_permissions=3",
    ] {
        let error = owners(wrong).unwrap_err();
        assert!(matches!(error, OptionError::Owner(..)), "{wrong}: {error:?}");
        assert!(wrong.starts_with(error.to_string().split('\'').nth(1).unwrap()), "{error}");
        assert!(!error.hint().is_empty());
    }
}

#[test]
fn five_hundred_layers() {
    let list: Vec<String> = (0..500).map(|i| format!("/some/long/path/of/layer/{i}")).collect();
    assert_eq!(lowers(&format!("lowerdir={}", list.join(":"))), list);
}

#[test]
fn an_upper_alone_is_a_stack() {
    assert!(one("upperdir=u,workdir=w").unwrap().lowers.is_empty());
}

#[test]
fn no_bytes_make_it_panic() {
    let alphabet = b"\\,:=\0lowerdir+u\xff";
    let mut state = 1_u32;
    for _ in 0..20_000 {
        let mut text = b"lowerdir=".to_vec();
        for _ in 0..12 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.push(alphabet[(state >> 16) as usize % alphabet.len()]);
        }
        if let Ok(options) = parse([&text[..]]) {
            assert!(!options.lowers.is_empty());
        }
    }
}

#[test]
fn a_container_brings_its_layers_and_takes_flags() {
    let layers = || MountOptions {
        lowers: vec!["/a".into()],
        upper: Some("/u".into()),
        work: Some("/w".into()),
        ..MountOptions::default()
    };
    let with = |text: &'static str| parse_flags(layers(), [text.as_bytes()]);
    let flagged = MountOptions { nosuid: true, volatile: true, ..layers() };
    assert_eq!(with("nosuid,volatile"), Ok(flagged));
    for given in ["lowerdir=/b", " upperdir=/b", "ro,workdir=/b", "lowerdir+=/b", "lowerdir"] {
        assert!(matches!(with(given), Err(OptionError::Known(_))), "{given}");
    }
    assert!(matches!(with("colour=red"), Err(OptionError::Unknown(_))));
}

#[test]
fn the_manner_of_serving() {
    let passed = "lowerdir=l,fsync=0,noacl,noxattrs=1,static_nlink,timeout=2.5,redirect_dir=off,\
                  fsname=a\\,b\\\\c,log=/var/log/x,debug";
    let manner = one(passed).unwrap().manner;
    assert!(manner.no_fsync && manner.no_acl && manner.no_xattrs && manner.static_nlink);
    assert!(manner.no_redirects && manner.debug);
    assert_eq!(manner.timeout, Some(std::time::Duration::from_millis(2500)));
    assert_eq!(manner.source.as_deref(), Some(r"a,b\c"));
    assert_eq!(manner.log.as_deref(), Some(std::ffi::OsStr::new("/var/log/x")));
    let opposites = "lowerdir=l,fsync=0,fsync=1,noacl,acl,noxattrs,noxattrs=0,redirect_dir=off,\
                     redirect_dir=on";
    assert_eq!(one(opposites).unwrap().manner, Manner::default());
}

#[test]
fn commas_in_the_quotes_of_a_security_context_are_its_own() {
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    let options = one(&format!("lowerdir=a:b,context=\"{label}\",upperdir=u,workdir=w")).unwrap();
    assert_eq!(options.manner.contexts, [("context".to_owned(), label.to_owned())]);
    assert_eq!(options.upper.as_deref(), Some(Path::new("u")));
    let options = one("lowerdir=l,rootcontext=x,fscontext=\"y\"").unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(options.manner.contexts, [pair("rootcontext", "x"), pair("fscontext", "y")]);
    // In a path, quotes are bytes like any other.
    assert_eq!(lowers("lowerdir=\"a,ro"), ["\"a"]);
    assert_eq!(one("lowerdir=l,context=\"a,b"), Err(OptionError::Unknown(b"context=\"a".to_vec())));
}
