//! What a command in a container sees: namespaces, devices, user, environment, binds.

use std::fs;
use std::os::unix::fs::symlink;

use plyfs::container::{Bind, config};

use crate::stand::{self, Stand, code, set_mode};

fn bind(host: impl Into<std::path::PathBuf>, container: &str, read_only: bool) -> Bind {
    Bind { host: host.into(), container: container.into(), read_only }
}

#[test]
fn processes_name_and_mounts_are_its_own() {
    let stand = Stand::new();
    let host = rustix::system::uname().nodename().to_owned();
    let script = "hostname; set -- /proc/[0-9]*; echo $#; cat /proc/1/comm; hostname other 2>&1
        grep -c . /proc/self/mountinfo; ls /";
    let (_, said) = stand.output_of(script);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "box");
    // Process 1 and the shell.
    assert_eq!(lines[1], "2");
    assert_eq!(lines[2], "plyfs-init");
    assert!(lines[3].contains("not permitted"), "{said}");
    assert!(lines[4].parse::<u32>().unwrap() < 40, "the host's mounts are still there: {said}");
    assert_eq!(&lines[5..], ["bin", "dev", "etc", "proc", "root", "sys", "tmp"]);
    assert_eq!(rustix::system::uname().nodename(), host.as_c_str());
    for (name, other) in
        [("pid", true), ("mnt", true), ("uts", true), ("ipc", true), ("net", false)]
    {
        let (_, inside) = stand.output_of(&format!("readlink /proc/self/ns/{name}"));
        let outside = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_eq!(inside.trim() != outside.to_str().unwrap(), other, "{name}");
    }
}

#[test]
fn nothing_but_the_standard_streams_is_open() {
    let stand = Stand::new();
    let output = stand::fed(&stand.spec(&["ls", "/proc/self/fd"]), b"");
    // One more: the listing's own.
    assert_eq!(stand::said(&output), "0\n1\n2\n3\n");
}

#[test]
fn devices_work_and_no_others_can_be_made() {
    let stand = Stand::new();
    let script = "
        set -e
        echo lost >/dev/null
        head -c 4 /dev/zero | od -An -tx1
        head -c 4 /dev/urandom | wc -c
        echo x >/dev/full 2>/dev/null || echo full
        for link in ptmx fd stdout; do readlink /dev/$link; done
        touch /dev/shm/x && ls /dev/shm
        stat -c %a /dev/shm /dev/null /dev/pts/ptmx
        mknod /tmp/zero c 1 5; mknod /dev/mine c 1 5
        for file in /tmp/zero /dev/mine; do head -c 1 $file 2>/dev/null || echo refused; done
        chmod 600 /dev/null 2>/dev/null || echo refused
        chown 5:5 /dev/zero 2>/dev/null || echo refused";
    let (code, said) = stand.output_of(script);
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    let expected = [
        "00 00 00 00",
        "4",
        "full",
        "pts/ptmx",
        "/proc/self/fd",
        "/proc/self/fd/1",
        "x",
        "1777",
        "666",
        "666",
        "refused",
        "refused",
        "refused",
        "refused",
    ];
    assert_eq!((code, lines.as_slice()), (0, expected.as_slice()));
}

#[test]
fn the_machine_cannot_be_changed_through_proc_and_sys() {
    let stand = Stand::new();
    let script = "
        for file in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity
        do echo x 2>/dev/null >$file || echo read-only; done
        cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c
        mkdir /sys/fs/x 2>/dev/null || echo read-only
        mount -t tmpfs none /tmp 2>/dev/null || echo no mounts
        umount /proc 2>/dev/null || echo no mounts
        mount -o remount,rw /sys 2>/dev/null || echo no mounts
        cat /proc/1/environ 2>/dev/null || echo not to be looked into
        readlink /proc/1/exe || echo nor to be reached
        ls /proc/1/root/ 2>/dev/null || echo at all";
    let (_, said) = stand.output_of(script);
    let expected = "read-only\nread-only\nread-only\n0\nread-only\nno mounts\nno mounts\n\
        no mounts\nnot to be looked into\nnor to be reached\nat all\n";
    assert_eq!(said, expected);
}

#[test]
fn capabilities_are_those_of_docker() {
    let stand = Stand::new();
    let script = "grep -E 'Cap|NoNew' /proc/self/status";
    let root = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
        CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\n";
    assert_eq!(stand.output_of(script).1, root);
    let (_, init) = stand.output_of("grep Cap /proc/1/status");
    assert!(root.starts_with(&init), "process 1 has more than its command: {init}");
    let user = root.replace(
        "Prm:\t00000000a80425fb\nCapEff:\t00000000a80425fb",
        "Prm:\t0000000000000000\nCapEff:\t0000000000000000",
    );
    let (_, said) = stand.output_with(script, |spec| spec.user = Some("ann".to_owned()));
    assert_eq!(said, user);
}

#[test]
fn user_groups_home_and_umask() {
    let stand = Stand::new();
    let script = "id -u; id -g; id -G; echo $HOME; umask; pwd";
    for (user, expected) in [
        ("", "0 0 0 /root 0022 /"),
        ("ann", "1000 100 100 29 /home/ann 0022 /"),
        ("1000", "1000 100 100 29 /home/ann 0022 /"),
        ("ann:audio", "1000 29 29 /home/ann 0022 /"),
        ("4711:42", "4711 42 42 / 0022 /"),
    ] {
        let (_, said) = stand.output_with(script, |spec| spec.user = Some(user.to_owned()));
        assert_eq!(said.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{user}");
    }
    let mut spec = stand.script("true");
    spec.user = Some("nobody-knows".to_owned());
    let error = plyfs::container::run(&spec).unwrap_err();
    assert_eq!(error.to_string(), "user 'nobody-knows': no such user in the image's /etc/passwd");
}

#[test]
fn the_environment_is_what_was_asked_for() {
    let stand = Stand::new();
    let wishes = [config::Variable::Set("A".into(), "b c".into())];
    let (_, said) = stand.output_with("env | grep -v -e SHLVL -e PWD | sort", |spec| {
        spec.env = config::environment("box", Some("vt100".as_ref()), &["X=1".into()], &wishes);
    });
    let path = config::DEFAULT_PATH;
    assert_eq!(said, format!("A=b c\nHOME=/root\nHOSTNAME=box\nPATH={path}\nTERM=vt100\nX=1\n"));
}

#[test]
fn the_command_is_looked_for_in_the_path_of_the_container() {
    let stand = Stand::new();
    fs::create_dir(stand.root().join("opt")).unwrap();
    symlink("/bin/busybox", stand.root().join("opt/true")).unwrap();
    let mut spec = stand.spec(&["true"]);
    spec.env = vec!["PATH=/nowhere::/opt".into()];
    assert_eq!(code(&spec), 0);
    spec.env = vec!["PATH=/nowhere".into()];
    assert_eq!(code(&spec), 127);
    spec.env = Vec::new();
    assert_eq!(code(&spec), 0);
}

#[test]
fn the_working_directory_is_made() {
    let stand = Stand::new();
    for cwd in ["/srv/app/data", "srv/app/data"] {
        let (code, said) = stand.output_with("pwd", |spec| spec.cwd = cwd.into());
        assert_eq!((code, said.as_str()), (0, "/srv/app/data\n"));
    }
    assert!(stand.root().join("srv/app/data").is_dir());
}

#[test]
fn binds_show_the_host_and_respect_read_only() {
    let stand = Stand::new();
    let shared = stand.dir().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "from the host\n").unwrap();
    let script = "cat /mnt/rw/file /mnt/one; echo new >/mnt/rw/new
        echo x 2>/dev/null >/mnt/ro/x || echo refused; echo x 2>/dev/null >/mnt/one || echo refused
        grep -o '/mnt/ro [^ ]*' /proc/self/mountinfo";
    let (_, said) = stand.output_with(script, |spec| {
        spec.binds = vec![
            bind(&shared, "/mnt/rw", false),
            bind(&shared, "/mnt/ro/", true),
            bind(shared.join("file"), "/mnt/one", true),
        ];
    });
    let (plain, options) = said.rsplit_once("/mnt/ro ").unwrap();
    assert_eq!(plain, "from the host\nfrom the host\nrefused\nrefused\n");
    assert!(options.starts_with("ro,nodev"), "{options}");
    assert_eq!(fs::read_to_string(shared.join("new")).unwrap(), "new\n");
    assert!(!shared.join("x").exists());
}

#[test]
fn a_bind_that_does_not_exist_is_named() {
    let stand = Stand::new();
    let mut spec = stand.script("true");
    spec.binds = vec![bind("/nowhere/at/all", "/mnt", false)];
    let error = plyfs::container::run(&spec).unwrap_err();
    assert_eq!(error.to_string(), "binding /nowhere/at/all: No such file or directory");
    fs::write(stand.root().join("file"), "").unwrap();
    spec.binds = vec![bind(stand.dir(), "/file", false)];
    let error = plyfs::container::run(&spec).unwrap_err().to_string();
    assert!(error.ends_with("at /file: /file: Not a directory"), "{error}");
}

/// A device that the user names is meant; those that lie in a directory are not.
#[test]
fn a_bound_device_works() {
    let stand = Stand::new();
    let script = "head -c 1 /mnt/zero | wc -c; head -c 1 /mnt/dev/zero 2>/dev/null || echo refused";
    let (_, said) = stand.output_with(script, |spec| {
        spec.binds = vec![bind("/dev/zero", "/mnt/zero", false), bind("/dev", "/mnt/dev", false)];
    });
    assert_eq!(said, "1\nrefused\n");
}

#[test]
fn resolv_conf_is_the_hosts_and_the_images_stays() {
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let stand = Stand::new();
    let own = stand.root().join("etc/resolv.conf");
    let look = |stand: &Stand| {
        let script = "cat /etc/resolv.conf; echo x 2>/dev/null >>/etc/resolv.conf && echo written";
        stand.output_with(script, |spec| spec.resolv_conf = true).1
    };
    // The image has a file.
    fs::write(&own, "the image's\n").unwrap();
    set_mode(&own, 0o600);
    assert_eq!(look(&stand), host);
    assert_eq!(fs::read_to_string(&own).unwrap(), "the image's\n");
    // A link to where, at run time, something would be.
    fs::remove_file(&own).unwrap();
    symlink("../run/systemd/resolve/stub-resolv.conf", &own).unwrap();
    assert_eq!(look(&stand), host);
    assert_eq!(stand.read("run/systemd/resolve/stub-resolv.conf"), "");
    // Nothing: a place is made for it.
    fs::remove_file(&own).unwrap();
    assert_eq!(look(&stand), host);
    assert_eq!(fs::read_to_string(&own).unwrap(), "");
    // Not asked for: not there.
    let (_, said) = stand.output_of("cat /etc/resolv.conf");
    assert_eq!(said, "");
}

#[test]
fn the_hosts_mounts_are_as_they_were() {
    let stand = Stand::new();
    let before = stand.mounts();
    let (_, said) = stand.output_with("touch /mnt/x; ls /mnt", |spec| {
        spec.binds = vec![bind(stand.dir(), "/mnt", false)];
    });
    assert_eq!(said, "root\nx\n");
    assert_eq!(stand.mounts(), before);
    let left: Vec<_> = ["proc", "sys", "dev", "mnt"]
        .into_iter()
        .filter(|dir| fs::read_dir(stand.root().join(dir)).unwrap().next().is_some())
        .collect();
    assert_eq!(left, Vec::<&str>::new());
}
